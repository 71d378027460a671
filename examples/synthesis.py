"""Sounds made from formulas, for the demo and the tests: a glissando, voices, and the mel spectrogram of a voice.

Everything is a function of its arguments, seeds included, so the demo prints the same numbers on every run.
All waveforms are float32 at `SAMPLE_RATE`.
"""

import math

import torch
import torch.nn.functional as F

SAMPLE_RATE = 16_000
MEL_CHANNELS = 40
MEL_STEP = 160  # samples: 10 ms
MEL_WINDOW = 400  # samples: 25 ms

# Centre frequencies in Hz of the first three formants of a male voice (Peterson and Barney 1952, table II).
FORMANTS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240), "e": (530, 1840, 2480), "o": (570, 840, 2410)}
FORMANT_BANDWIDTHS = (80, 100, 140)  # Hz, estimate: usual values of formant synthesizers
FORMANT_GAINS = (1.0, 0.7, 0.5)  # estimate: amplitudes fall with frequency


def glissando(start_hz, end_hz, seconds):
    """A tone with five harmonics whose pitch glides evenly in octaves.

    Returns: (waveform [samples], frequency in Hz of every sample [samples]).
    """
    position = torch.linspace(0, 1, int(seconds * SAMPLE_RATE), dtype=torch.float64)
    frequency = start_hz * (end_hz / start_hz) ** position
    phase = 2 * math.pi * torch.cumsum(frequency / SAMPLE_RATE, 0)
    waveform = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
    return (0.3 * waveform).float(), frequency.float()


def voice(pitch_hz, tract_scale, vowels, seed, seconds=1.6):
    """Vowels spoken by a voice: harmonics of a wavering pitch, shaped by formants, four syllables a second.

    Args: pitch_hz: mean fundamental.   tract_scale: formant frequencies over those of `FORMANTS`; above 1 is a shorter vocal tract.
        vowels: letters of `FORMANTS`, spoken evenly in time.   seed: of the pitch's waver and the breath noise.
    Returns: waveform [samples], with a root mean square of -30 dB, the level that the speaker encoder was trained at.
    """
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waver = 0.1 * torch.sin(2 * math.pi * (1.5 * time + torch.rand(1, generator=generator)))
    pitch = pitch_hz * (1 + waver - 0.1 * time / seconds)
    formants = _formant_tracks(vowels, len(time)) * tract_scale
    phase = 2 * math.pi * torch.cumsum(pitch / SAMPLE_RATE, 0)
    harmonics = range(1, int(SAMPLE_RATE / 2 / (1.2 * pitch_hz)))  # 1.2: the waver's highest pitch stays below Nyquist
    tone = sum(_formant_gain(n * pitch, formants) / n * torch.sin(n * phase) for n in harmonics)
    syllables = 0.55 - 0.45 * torch.cos(2 * math.pi * 4 * time)
    waveform = tone * syllables + 0.002 * torch.randn(len(time), generator=generator)
    return waveform * (10 ** (-30 / 20) / waveform.square().mean().sqrt())


def mel_spectrogram(waveform):
    """Power in 40 mel bands every 10 ms, as librosa's `melspectrogram` makes it (Slaney's scale and normalization).

    Args: waveform [samples].   Returns: [frames, 40]; not the logarithm, as the speaker encoder expects.
    """
    window = torch.hann_window(MEL_WINDOW)
    spectrum = torch.stft(waveform, MEL_WINDOW, MEL_STEP, window=window, pad_mode="constant", return_complex=True)
    return (_mel_filters() @ spectrum.abs().square()).T.contiguous()


def _formant_tracks(vowels, n_samples):
    """[samples, 3] formant frequencies: the vowels one after the other, with glides of 50 ms between them."""
    steps = torch.tensor([FORMANTS[vowel] for vowel in vowels], dtype=torch.float32)
    index = torch.arange(n_samples) * len(vowels) // n_samples
    glide = SAMPLE_RATE // 20
    padded = F.pad(steps[index].T[None], (glide // 2, glide - 1 - glide // 2), mode="replicate")
    return F.avg_pool1d(padded, glide, stride=1)[0].T


def _formant_gain(frequency, formants):
    """Amplitude that the vocal tract gives to `frequency` [samples]: a sum of resonances and a floor."""
    resonances = zip(formants.T, FORMANT_BANDWIDTHS, FORMANT_GAINS)
    return 0.01 + sum(gain / (1 + ((frequency - centre) / bandwidth) ** 2) for centre, bandwidth, gain in resonances)


def _mel_filters():
    """[40, 201] triangles of unit area over the bins of the Fourier transform."""
    highest_mel = 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000, 6.4)  # Slaney: linear to 1 kHz, then 27 steps per factor 6.4
    mel = torch.linspace(0, highest_mel, MEL_CHANNELS + 2)
    edges = torch.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = torch.linspace(0, SAMPLE_RATE / 2, MEL_WINDOW // 2 + 1)
    return torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0) * 2 / (high - low)
