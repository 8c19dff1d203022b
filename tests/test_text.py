"""The text tower gives what 77 tokens through open_clip's own forward give: features and gradients."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bench.clip.packing
import bench.clip.text
from bench.clip.backbone import PACKAGED, load_backbone
from bench.clip.text import POSITIONS, Prompts, TextTower
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
import reference

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-5  # relative, float32
LITE_CLIP = Path(__file__).parents[2] / "shared" / "weights" / "lite-clip.json"

TINY = {"width": 32, "heads": 2, "layers": 3}
# Beside the sizes of the paper, what open_clip's configurations can make of a causal tower.
CAUSAL = {
    "RN50": lambda: reference.random_clip(1024, open_clip.get_model_config("RN50")["text_cfg"]),
    "ViT-B-16": lambda: reference.random_clip(512, open_clip.get_model_config("ViT-B-16")["text_cfg"], seed=1),
    "QuickGELU": lambda: reference.random_clip(24, TINY, quick_gelu=True),
    "one layer": lambda: reference.random_clip(24, {**TINY, "layers": 1}),
    "CustomTextCLIP": lambda: reference.random_clip(24, TINY, custom=True),
    "layer scale": lambda: reference.random_clip(24, {**TINY, "ls_init_value": 0.5}),
    "biased projection": lambda: reference.random_clip(24, {**TINY, "proj_bias": True}),
    "no projection": lambda: reference.random_clip(32, {**TINY, "proj_type": "none"}),
    "pooled by EOT's id": lambda: reference.random_clip(24, {**TINY, "pool_type": "eos", "eos_id": 49407}),
    "demo": lambda: packaged_demo(),
    "lite-clip": lambda: lite_clip(),
}
NOT_CAUSAL = {
    "no causal mask": {"text_cfg": {**TINY, "no_causal_mask": True}},
    "no causal mask, CustomTextCLIP": {"text_cfg": {**TINY, "no_causal_mask": True}, "custom": True},
    "last token pooled": {"text_cfg": {**TINY, "pool_type": "last"}},
    "the full stop pooled": {"text_cfg": {**TINY, "pool_type": "eos", "eos_id": 269}},
    "class token behind the text": {"text_cfg": {**TINY, "embed_cls": True, "pool_type": "last"}, "custom": True},
    "attention blocks of another kind": {"text_cfg": {**TINY, "qk_norm": True}},
}
NAMES = {
    "plain": ["cat", "golden retriever", "crocodile head"],
    "odd": ["water_lilly", "Boeing 737-800 (passenger)", "St. John's wort", "rosé & \"co.\" [#3]…", "wait..", "Γειά 7"],
    "long": ["antirrhinum", "a very long name of a class that goes on, and on, until nobody reads it any more", "x"],
    "repeated": ["cat", "dog", "cat", "cat"],
    "alike": ["2012 BMW X3 SUV", "cat", "2012 BMW X6 SUV", "2012 Audi S5", "2007 BMW X5 SUV", "cat tree", "2012 BMW"],
}


def packaged_demo():
    if not (PACKAGED / "demo-clip.json").is_file():
        pytest.skip("the packaged demo backbone is not there")
    return load_backbone("demo-clip").tower


def lite_clip():
    if not LITE_CLIP.is_file():
        pytest.skip("lite-clip does not stand beside the project")
    return load_backbone(str(LITE_CLIP)).tower


@pytest.fixture(scope="module", params=CAUSAL)
def tower(request):
    made = CAUSAL[request.param]()
    made = made if isinstance(made, TextTower) else TextTower(made, reference.clip_tokenizer())
    assert made.causal
    return made


@pytest.fixture(scope="module")
def small():
    return TextTower(reference.random_clip(24, TINY), reference.clip_tokenizer())


@pytest.fixture(scope="module", params=NOT_CAUSAL)
def other(request):
    return TextTower(reference.random_clip(24, **NOT_CAUSAL[request.param]), reference.clip_tokenizer())


# ---- the kinds of context ------------------------------------------------------------------------------------


def random_contexts(tower, n, length, seed=0):
    rng = torch.Generator().manual_seed(1000 * seed + 10 * n + length)
    return (0.05 * torch.randn(n, length, tower.width, generator=rng)).requires_grad_(True)


def of_all(tower, length):
    """One context shared by all names."""
    return [Prompts(random_contexts(tower, 1, length), NAMES["plain"])]


def of_tasks(tower, length):
    """One context a task; tasks of different sizes."""
    names = [["cat", "dog house"], ["plain white", "dotted"], ["a rather long name, too"]]
    return [Prompts(random_contexts(tower, 1, length, seed=t), own) for t, own in enumerate(names)]


def of_classes(tower, length):
    """One context a class."""
    return [Prompts(random_contexts(tower, 3, length), NAMES["plain"], paired=True)]


def of_images(tower, length):
    """One context an image, each with every name."""
    return [Prompts(random_contexts(tower, 2, length), ["cat", "golden retriever"])]


def several_per_class(tower, length):
    """Two contexts for every class of a task, and two for each single class, side by side."""
    names = ["cat", "tabby cat"]
    return [
        Prompts(random_contexts(tower, 2, length, seed=1), names),
        Prompts(random_contexts(tower, 4, length, seed=2), [*names, *names], paired=True),
    ]


KINDS = [of_all, of_tasks, of_classes, of_images, several_per_class]


def of_every_kind(tower, length):
    """All of them in one call."""
    return [p for kind in KINDS for p in kind(tower, length)]


def reference_features(tower, prompts, position):
    """What `tower.encode` promises, by the reference."""
    contexts, names = [], []
    for p in prompts:
        if p.paired:
            contexts.append(p.context)
            names += p.names
        else:
            contexts.append(p.context.repeat_interleave(len(p.names), dim=0))
            names += list(p.names) * len(p.context)
    flat = reference.encode(tower.model, tower.tokenizer, torch.cat(contexts), names, position)
    sizes = [len(p.names) if p.paired else len(p.context) * len(p.names) for p in prompts]
    shapes = [(len(p.names),) if p.paired else (len(p.context), len(p.names)) for p in prompts]
    return [part.view(*shape, -1) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


def apart(ours, theirs):
    """Largest relative difference of the vectors in the last dimension."""
    assert ours.shape == theirs.shape
    length = theirs.norm(dim=-1)
    assert bool((length > 0).all())
    return ((ours - theirs).norm(dim=-1) / length).max().item()


def features_and_gradients(features, prompts):
    """Both, as lists; gradients of a weighted sum, so that no direction is left out."""
    rng = torch.Generator().manual_seed(7)
    total = sum((f * torch.randn(f.shape, generator=rng)).sum() for f in features)
    gradients = torch.autograd.grad(total, [p.context for p in prompts])
    # The gradient of a context is one vector: single entries of it may well be next to nothing.
    return [f.detach() for f in features], [g.flatten(1) for g in gradients]


def assert_matches_reference(tower, prompts, position):
    ours = features_and_gradients(tower.encode(prompts, position), prompts)
    theirs = features_and_gradients(reference_features(tower, prompts, position), prompts)
    for what, mine, true in zip(("features", "gradients"), ours, theirs, strict=True):
        for a, b in zip(mine, true, strict=True):
            assert apart(a, b) < TOLERANCE, f"{what} differ"


# ---- causal towers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_prefix_sharing_matches_full_length_encoding(tower, kind):
    assert_matches_reference(tower, kind(tower, length=16 if kind is of_all else 4), "end")


@pytest.mark.parametrize("position", ["middle", "front"])
def test_vectors_behind_the_name_match_full_length_encoding(tower, position):
    kind = of_tasks if tower.width >= 512 else of_every_kind  # the reference takes its time
    assert_matches_reference(tower, kind(tower, length=5), position)


def test_prompts_of_every_kind_in_one_call_match_full_length_encoding(small):
    assert_matches_reference(small, of_every_kind(small, length=4), "end")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("names", NAMES)
def test_names_of_every_kind_match_full_length_encoding(small, names, position):
    prompts = [Prompts(random_contexts(small, 2, 3), NAMES[names])]
    assert_matches_reference(small, prompts, position)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("length", [1, 2])
def test_short_contexts_match_full_length_encoding(small, length, position):
    assert_matches_reference(small, of_tasks(small, length), position)


@pytest.mark.parametrize("position", POSITIONS)
def test_however_suffixes_are_packed_they_match_full_length_encoding(small, monkeypatch, position):
    """One suffix a pack, several, all of a context in one; a segment for each size, and one for all."""
    prompts = of_tasks(small, 4)
    n_names, n_packs, n_segments = sum(len(p.names) for p in prompts), [], []
    for pack, cost in ((1, 0), (8, 0), (8, 10_000), (10_000, 0), (10_000, 10_000)):
        monkeypatch.setattr(bench.clip.packing, "PACK", pack)
        monkeypatch.setitem(bench.clip.text.SEGMENT_COST, "cpu", cost)
        monkeypatch.setattr(small, "_plans", {})
        assert_matches_reference(small, prompts, position)
        (plan,) = small._plans.values()
        assert sum(len(s.eot) for s in plan.segments) == n_names
        n_packs.append(sum(len(s.contexts) for s in plan.segments))
        n_segments.append(len(plan.segments))
    assert n_packs[0] == n_names and n_packs[3] == n_packs[4] == len(prompts)
    assert n_packs[0] >= n_packs[1] == n_packs[2] >= n_packs[3]
    assert n_segments[2] == n_segments[4] == 1 and n_segments[0] > 1 and n_segments[3] > 1


@pytest.mark.parametrize("pack", [1, 8, 12, 10_000])
def test_however_trees_are_cut_they_match_full_length_encoding(small, monkeypatch, pack):
    prompts = [Prompts(random_contexts(small, n, 4, seed=n), NAMES["alike"] + NAMES["repeated"]) for n in (1, 2)]
    monkeypatch.setattr(bench.clip.packing, "PACK", pack)
    monkeypatch.setattr(small, "_plans", {})
    assert_matches_reference(small, prompts, "end")


suffix_lists = st.lists(st.lists(st.integers(1, 3), max_size=9).map(lambda ids: (*ids, 0)), min_size=1, max_size=20)


def seen_from(pack):
    """For each token of a pack, the tokens that it sees."""
    return [[i for i in range(j + 1) if j <= pack.until[i]] for j in range(pack.size)]


@given(suffix_lists, st.integers(1, 40))
def test_packs_hold_every_suffix_as_a_path_wherever_trees_are_cut(suffixes, size):
    with mock.patch.object(bench.clip.packing, "PACK", size):
        packs = bench.clip.packing.packs_of(suffixes)
    assert sorted(j for pack in packs for j in pack.members) == list(range(len(suffixes)))
    for pack in packs:
        seen = seen_from(pack)
        for j, end in zip(pack.members, pack.ends, strict=True):
            assert tuple(pack.ids[k] for k in seen[end]) == suffixes[j]
    different = {suffix[:n] for suffix in suffixes for n in range(1, len(suffix) + 1)}
    assert len(different) <= sum(pack.size for pack in packs) <= sum(len(suffix) for suffix in suffixes)


@given(st.lists(st.integers(2, 70), min_size=1, max_size=60), st.integers(1, 100))
def test_packs_hold_every_suffix_once_and_are_of_nearly_the_same_size(lengths, size):
    with mock.patch.object(bench.clip.packing, "PACK", size):
        packs = bench.clip.packing._balanced(lengths)
    assert sorted(j for members in packs for j in members) == list(range(len(lengths)))
    assert len(packs) <= -(-sum(lengths) // size)
    sizes = [sum(lengths[j] for j in members) for members in packs]
    assert max(sizes) - min(sizes) <= max(lengths)


@given(suffix_lists)
def test_in_a_pack_a_beginning_stands_once_and_each_token_is_seen_from_where_it_stands_before(suffixes):
    """Suffixes end with EOT (0), which stands nowhere else."""
    members = sorted(range(len(suffixes)), key=lambda j: suffixes[j])
    pack = bench.clip.packing.Pack.of(members, suffixes)
    beginnings = {suffix[:n] for suffix in suffixes for n in range(1, len(suffix) + 1)}
    assert pack.size == len(beginnings)
    seen = seen_from(pack)
    for j, i in zip(pack.members, pack.ends, strict=True):
        assert tuple(pack.ids[k] for k in seen[i]) == suffixes[j]
        assert [pack.places[k] for k in seen[i]] == list(range(len(suffixes[j])))
    assert len({tuple(pack.ids[k] for k in own) for own in seen}) == pack.size


def test_names_that_begin_alike_are_encoded_in_part_once(small):
    names = [f"2012 BMW X{i} SUV" for i in range(1, 7)]
    small._plans.clear()
    small.encode([Prompts(random_contexts(small, 2, 4), names)])
    (plan,) = small._plans.values()
    beginning = len(small.tokens("2012 BMW X"))
    each = len(small.tokens("1 SUV.")) + 1  # with EOT
    assert len(small.tokens(f"{names[0]}.")) + 1 == beginning + each  # X1 is two tokens
    assert [s.ids.numel() for s in plan.segments] == [2 * (beginning + 6 * each)]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(0, 20))
def test_segments_are_padded_as_little_as_their_cost_allows(sizes, cost):
    """No other way to group them is cheaper."""
    packs = [bench.clip.packing.Placed(bench.clip.packing.Pack.of([0], [(0,) * n]), i, i) for i, n in enumerate(sizes)]

    def price(groups):
        return sum(len(group) * max(group) + cost for group in groups)

    found = [[placed.pack.size for placed in group] for group in bench.clip.packing.alike(packs, cost)]
    assert sorted(n for group in found for n in group) == sorted(sizes)
    ordered = sorted(sizes)
    cuts = itertools.product((False, True), repeat=len(ordered) - 1)
    groupings = []
    for cut in cuts:
        groups = [[ordered[0]]]
        for n, new in zip(ordered[1:], cut, strict=True):
            groups.append([n]) if new else groups[-1].append(n)
        groupings.append(groups)
    assert price(found) == min(price(groups) for groups in groupings)


def test_the_result_depends_on_the_order_of_the_names_by_order_alone(small):
    context = random_contexts(small, 2, 4)
    names = ["sea", "a long name of a class", "lake or sea", "land"]
    features = small.encode([Prompts(context, names)])[0]
    backwards = small.encode([Prompts(context, names[::-1])])[0]
    assert apart(backwards.flip(1).detach(), features.detach()) < TOLERANCE


def test_a_kept_plan_is_used_for_the_same_names_alone(small):
    context = random_contexts(small, 1, 4)
    first = small.encode([Prompts(context, ["cat", "dog"])])[0]
    again = small.encode([Prompts(context, ["cat", "dog"])])[0]
    other = small.encode([Prompts(context, ["dog", "cat"])])[0]
    assert torch.equal(first, again)
    assert apart(other.flip(1).detach(), first.detach()) < TOLERANCE
    assert apart(other.detach(), first.detach()) > 100 * TOLERANCE


SENTENCES = ["a photo of a cat.", "a", "centered satellite photo of Permanent Crop Land.", "", "no. 1!", "a", "Åß"]


def test_whole_sentences_are_encoded_as_open_clip_does(tower):
    with torch.no_grad():
        expected = tower.model.encode_text(tower.tokenizer(SENTENCES))
    assert apart(tower.encode_texts(SENTENCES), expected) < TOLERANCE


def test_more_sentences_than_one_portion_holds(small):
    many = [f"number {i}" for i in range(1100)]
    features = small.encode_texts(many)
    assert len(features) == 1100
    assert apart(features[1020:1030], small.encode_texts(many[1020:1030])) < TOLERANCE


def test_words_as_context_are_the_sentence(tower):
    context = tower.word_vectors("a photo of a")[None]
    features = tower.encode([Prompts(context, NAMES["plain"])])[0][0]
    expected = tower.model.encode_text(tower.tokenizer([f"a photo of a {name}." for name in NAMES["plain"]]))
    assert apart(features, expected) < TOLERANCE


name_texts = st.text("abcdefgh XYZ019.,-'&()/[]_!é¡", min_size=1, max_size=12)


@st.composite
def shapes(draw):
    """(number of contexts, names, paired) of a few prompts, as a method could ask for."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        names = draw(st.lists(name_texts, min_size=1, max_size=4))
        paired = draw(st.booleans())
        found.append((len(names) if paired else draw(st.integers(1, 3)), names, paired))
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes(), st.integers(1, 6), st.sampled_from(POSITIONS), st.sampled_from([1, 10, 64]))
def test_any_names_and_shapes_match_full_length_encoding(small, shapes, length, position, pack):
    prompts = [
        Prompts(random_contexts(small, n, length, seed=i), names, paired) for i, (n, names, paired) in enumerate(shapes)
    ]
    with mock.patch.object(bench.clip.packing, "PACK", pack):
        small._plans.clear()
        assert_matches_reference(small, prompts, position)


def test_frozen_weights_get_no_gradient(small):
    context = random_contexts(small, 1, 4)
    small.encode([Prompts(context, ["cat"])])[0].sum().backward()
    assert context.grad is not None and all(weight.grad is None for weight in small.model.parameters())


# ---- other towers ----------------------------------------------------------------------------------------------


def test_towers_in_which_sharing_would_be_wrong_take_the_plain_path(other):
    assert not other.causal


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_plain_path_matches_full_length_encoding(other, kind, position):
    assert_matches_reference(other, kind(other, length=3), position)


def test_the_plain_path_encodes_whole_sentences_as_open_clip_does(other):
    with torch.no_grad():
        expected = other.model.encode_text(other.tokenizer(SENTENCES))
    assert apart(other.encode_texts(SENTENCES), expected) < TOLERANCE


def test_the_plain_path_leaves_the_model_as_it_was(other):
    ids = other.tokenizer(["a cat"])
    with torch.no_grad():
        before = other.model.encode_text(ids)
        other.encode([Prompts(random_contexts(other, 1, 3), ["dog"])])
        assert torch.equal(other.model.encode_text(ids), before)


# ---- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", POSITIONS)
def test_a_name_that_does_not_fit_is_told(small, position):
    fits = "word " * 57 + "word"  # 58 words, 16 vectors, SOT, full stop and EOT are 77
    assert small.encode([Prompts(random_contexts(small, 1, 16), [fits])], position)[0].shape == (1, 1, 24)
    with pytest.raises(UserError, match=r"word word.* needs 78 tokens .* reads 77"):
        small.encode([Prompts(random_contexts(small, 1, 16), ["cat", fits + " word"])], position)


def test_a_sentence_that_does_not_fit_is_told(small):
    with pytest.raises(UserError, match="tokens"):
        small.encode_texts(["word " * 76])


def test_a_text_tower_of_another_library_is_told():
    with pytest.raises(UserError, match="not supported"):
        TextTower(SimpleNamespace(text=SimpleNamespace()), reference.clip_tokenizer())
