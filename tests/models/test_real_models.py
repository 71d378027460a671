"""Three models with real weights: they do their job, run wholly native in one partition, and at any batch size and length."""

import pytest
import torch

import accel
import demo
import real_models

# other inputs for each model, of (batch, length); CREPE's frames have one length
SIZED_INPUTS = {
    "sentences": lambda batch, length: (torch.randint(0, 30_000, (batch, length)), _ragged_mask(batch, length)),
    "pitch": lambda batch, length: (torch.randn(batch, real_models.FRAME_SAMPLES),),
    "speakers": lambda batch, length: (torch.rand(batch, length, 40),),
}
SIZES = [(4, 24), (2, 40), (7, 9)]


def _ragged_mask(batch, length):
    lengths = torch.arange(batch) % length + 1
    return (torch.arange(length) < lengths[:, None]).long()


@pytest.fixture(scope="module", params=real_models.LOADERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def real_model(name):
    return real_models.LOADERS[name]()


def assert_matches_eager(compiled, model, inputs):
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=0, atol=real_models.TOLERANCE)


def test_real_model_matches_eager(real_model):
    assert_matches_eager(torch.compile(real_model.model, backend="accel"), real_model.model, real_model.inputs)


def test_real_model_is_one_native_partition(real_model):
    with torch.no_grad():
        explanation = accel.explain(real_model.model)(*real_model.inputs).to_dict()
    (graph,) = explanation["graphs"]
    assert explanation["graph_breaks"] == [] and graph["fallbacks"] == []
    assert len(graph["partitions"]) == 1
    assert explanation["coverage"]["native_nodes"] == explanation["coverage"]["total_nodes"] > 0


@pytest.mark.parametrize("dynamic, most_graphs", [(True, 1), (None, 2)], ids=["dynamic", "automatic"])
def test_real_model_serves_any_batch_and_length(name, real_model, dynamic, most_graphs):
    compiled = torch.compile(real_model.model, backend="accel", dynamic=dynamic)
    for batch, length in SIZES:
        assert_matches_eager(compiled, real_model.model, SIZED_INPUTS[name](batch, length))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= most_graphs


def test_sentence_embedder_finds_the_paraphrases():
    model, inputs, _ = real_models.sentence_embedder()
    with torch.no_grad():
        embeddings = model(*inputs)
    cosines = embeddings @ embeddings.T - 2 * torch.eye(len(embeddings))
    assert cosines[:4].argmax(1).tolist() == [1, 0, 3, 2]
    assert cosines[4].max() < 0.3


def test_pitch_tracker_hears_the_glissando():
    model, (frames,), _ = real_models.pitch_tracker()
    with torch.no_grad():
        heard = real_models.decode_pitch(model(frames))
    truth = torch.logspace(0, 1, len(frames) + 2, base=8)[1:-1] * 110  # three octaves from 110 Hz, evenly in octaves
    cents = real_models.cents_between(heard, truth).abs()
    assert cents.median() < real_models.CENTS_PER_BIN and cents.max() < 100


def test_speaker_encoder_tells_the_speakers_apart():
    model, inputs, _ = real_models.speaker_encoder()
    with torch.no_grad():
        embeddings = model(*inputs)
    cosines = embeddings @ embeddings.T
    same = torch.block_diag(*[torch.ones(3, 3)] * 2).bool()
    assert cosines[same].min() > cosines[~same].max() + 0.05


def test_demo_prints_result_coverage_error_latency_and_table(capsys):
    assert demo.main(["pitch", "--no-inductor", "--seconds", "0.1"]) == 0
    printed = capsys.readouterr().out
    for words in ("median distance", "nodes native (100.0 %)", "partitions  1 in 1 graph", "error", "latency     accel"):
        assert words in printed


def test_demo_names_the_models_it_knows(capsys):
    with pytest.raises(SystemExit):
        demo.main(["whisper"])
    assert "no model named whisper; there are sentences, pitch, speakers" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["host", "dvx-h1"])
def test_real_model_executes_the_instructions_that_its_profile_derives(name, real_model, machine):
    inputs = SIZED_INPUTS[name](2, 9)
    with torch.no_grad():
        profile = accel.profile(real_model.model, machine=machine, verify=True)(*inputs)
        expected = real_model.model(*inputs)
    torch.testing.assert_close(profile.result, expected, rtol=0, atol=real_models.TOLERANCE)
    assert profile.is_exact and profile.eager == () and profile.total.cycles == sum(profile.total.buckets.values())
