"""CoOp, shared CoOp and SoftCPT train as the specification says; methods and their options are found by name."""

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import bench.clip.packing
import bench.clip.text
import bench.methods
from bench.clip.text import TextTower
from bench.errors import UserError
from bench.methods import Method, TaskData, find_method, method_names, param
from bench.methods.base import Parameters
from bench.methods.prompt import SIDE_BY_SIDE
from bench.methods.training import Batch, Recipe, joint_cross_entropy, learning_rate
from bench.options import numbers, variants

sys.path.append(str(Path(__file__).parent))
import reference

pytestmark = pytest.mark.usefixtures("one_thread")

EMBED = 24
NAMES = {
    "colour recognition": ("red", "green", "sky blue"),
    "recognition of dogs": ("golden retriever", "pug", "poodle", "St. Bernard", "dachshund"),
    "land use recognition": ("river", "annual crop land", "sea or lake", "forest"),
}
# Three views, so that four epochs come round; 29 images make three batches of 8 and drop five.
SMALL_RECIPE = {"epochs": 4, "batch": 8, "lr": 0.02, "warmup_lr": 0.001}


@pytest.fixture(scope="module")
def clip():
    model = reference.random_clip(EMBED, {"width": 32, "heads": 2, "layers": 2})
    tower = TextTower(model, reference.clip_tokenizer())
    return SimpleNamespace(tower=tower, scale=float(model.logit_scale.exp()), embed_dim=EMBED, device=tower.device)


def make_tasks(shots=(2, 3, 2), n_views=3):
    """Three tasks of 3, 5 and 4 classes with features around a centre for each class."""
    rng = torch.Generator().manual_seed(3)
    tasks = []
    for (task_name, names), n in zip(NAMES.items(), shots, strict=True):
        labels = torch.arange(len(names)).repeat(n)
        centres = torch.randn(len(names), EMBED, generator=rng)
        noise = torch.randn(n_views, len(labels), EMBED, generator=rng)
        tasks.append(TaskData(f"task {len(tasks)}", task_name, names, "a {}.", centres[labels] + 0.5 * noise, labels))
    return tasks


def no_report(done, total):
    pass


def fitted(name, clip, tasks, seed=1, **params):
    found = find_method(name)
    method = found(found.Params(**{"context": 4, **SMALL_RECIPE, **params}))
    method.fit(clip, tasks, seed, no_report)
    return method


def recorded(name, clip, tasks, monkeypatch, seed=1, **params):
    """A fitted method, its start values, and every step's batch and loss."""
    found = find_method(name)
    start, steps = {}, []
    setup, loss = found.setup, found.loss

    def recording_setup(self, *args):
        setup(self, *args)
        start.update({key: value.detach().clone() for key, value in self.learned.items()})

    def recording_loss(self, batch, text):
        value = loss(self, batch, text)
        steps.append((batch, value.item()))
        return value

    monkeypatch.setattr(found, "setup", recording_setup)
    monkeypatch.setattr(found, "loss", recording_loss)
    return fitted(name, clip, tasks, seed, **params), start, steps


# ---- against the reference -----------------------------------------------------------------------------------


def images_of(batch, tasks, epoch):
    """Which images these are: (task, image), found again by their features in the epoch's view."""
    found = []
    for feature, label, t in zip(batch.features, batch.labels, batch.tasks.tolist(), strict=True):
        view = tasks[t].views[(epoch - 1) % len(tasks[t].views)]
        alike = torch.nn.functional.normalize(view, dim=-1) @ feature
        i = int(alike.argmax())
        assert alike[i] > 1 - 1e-6 and tasks[t].labels[i] == label
        found.append((t, i))
    return found


def as_reference(tasks):
    return [reference.Task(t.task_name, list(t.class_names), t.views, t.labels) for t in tasks]


def assert_trains_as_the_reference(clip, tasks, contexts_of, start, steps, learned, position, steps_per_epoch):
    """Losses and parameters after the same batches from the same start values."""
    batches = [
        (step // steps_per_epoch + 1, images_of(batch, tasks, step // steps_per_epoch + 1))
        for step, (batch, _) in enumerate(steps)
    ]
    recipe = reference.Recipe(epochs=SMALL_RECIPE["epochs"], lr=SMALL_RECIPE["lr"], first_lr=SMALL_RECIPE["warmup_lr"])
    tower = clip.tower
    losses, parameters = reference.train(
        contexts_of, tower.model, tower.tokenizer, as_reference(tasks), start, batches, recipe, position
    )
    assert len(losses) >= 10
    assert [loss for _, loss in steps] == pytest.approx(losses, rel=1e-4)
    for name, expected in parameters.items():
        moved = (expected - start[name]).norm()
        assert moved > 0.01 * start[name].norm(), "training that moves nothing proves nothing"
        assert (learned[name] - expected).norm() < 1e-4 * moved


@pytest.mark.parametrize("position", ["end", "middle"])
@pytest.mark.parametrize(
    ("name", "options", "contexts_of"),
    [
        ("coop", {"joint": True}, reference.coop),
        ("shared-coop", {}, reference.shared_coop),
        ("softcpt", {"init_std": 0.1}, reference.softcpt),
    ],
)
def test_joint_steps_are_the_reference_s(clip, monkeypatch, name, options, contexts_of, position):
    tasks = make_tasks()
    method, start, steps = recorded(name, clip, tasks, monkeypatch, position=position, **options)
    assert len(steps) == 4 * (29 // 8)
    assert any(len(batch.present) < 3 for batch, _ in steps), "some batch should lack a task"
    assert_trains_as_the_reference(clip, tasks, contexts_of, start, steps, method.learned, position, 29 // 8)


def test_separate_coop_steps_are_the_reference_s(clip, monkeypatch):
    tasks = make_tasks(shots=(8, 6, 6))
    method, start, steps = recorded("coop", clip, tasks, monkeypatch)
    for t, task in enumerate(tasks):
        own = [(batch, loss) for batch, loss in steps if batch.present == [t]]
        an_epoch = len(task.labels) // 8
        assert len(own) == 4 * an_epoch
        alone = [(replace(batch, tasks=torch.zeros_like(batch.tasks)), loss) for batch, loss in own]
        assert_trains_as_the_reference(
            clip,
            [task],
            reference.coop,
            {"context": start[f"context-{t}"]},
            alone,
            {"context": method.learned[f"context-{t}"]},
            "end",
            an_epoch,
        )


def test_softcpt_trains_the_same_however_suffixes_are_packed(clip, monkeypatch):
    together = fitted("softcpt", clip, make_tasks(), init_std=0.1)
    monkeypatch.setattr(bench.clip.packing, "PACK", 1)
    monkeypatch.setattr(clip.tower, "_plans", {})
    alone = fitted("softcpt", clip, make_tasks(), init_std=0.1)
    for name, value in together.learned.items():
        assert (value - alone.learned[name]).norm() < 1e-4 * value.norm()


@pytest.mark.parametrize("name", ["coop", "shared-coop", "softcpt"])
def test_scores_are_scaled_cosines_among_own_classes(clip, name):
    tasks, queries = make_tasks(), torch.randn(6, EMBED, generator=torch.Generator().manual_seed(5)) * 7
    method = fitted(name, clip, tasks)
    learned = dict(method.learned)
    if name == "coop":
        learned = {"context": torch.cat([learned[f"context-{t}"] for t in range(3)])}
    contexts_of = {"coop": reference.coop, "shared-coop": reference.shared_coop, "softcpt": reference.softcpt}[name]
    model, tokenizer = clip.tower.model, clip.tower.tokenizer
    for t, context in enumerate(contexts_of(model, tokenizer, learned, as_reference(tasks))):
        names = list(tasks[t].class_names)
        text = reference.encode(model, tokenizer, context.expand(len(names), -1, -1), names)
        expected = clip.scale * torch.nn.functional.cosine_similarity(queries[:, None], text, dim=-1)
        assert torch.allclose(method.predict(tasks[t], queries), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["coop", "shared-coop", "softcpt"])
def test_other_class_names_than_the_own_can_be_scored(clip, name):
    tasks, queries = make_tasks(), torch.randn(6, EMBED, generator=torch.Generator().manual_seed(5))
    method = fitted(name, clip, tasks)
    own = method.predict(tasks[0], queries)
    others = method.predict(tasks[0], queries, ["unseen", "sky blue", "red"])
    assert torch.allclose(others[:, 1:], own[:, [2, 0]], atol=1e-3)
    assert torch.equal(method.predict(tasks[0], queries), own)


# ---- the recipe ----------------------------------------------------------------------------------------------


def test_the_paper_s_recipe_is_the_default():
    assert vars(Recipe()) == {
        "epochs": 50,
        "batch": 32,
        "lr": 0.002,
        "warmup_lr": 1e-5,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "init_std": 0.02,
        "repeats": 1,
        "schedule_steps": 1,
        "epoch_steps": 0,
        "task_temperature": 1,
        "tasks_a_step": 0,
    }
    assert (find_method("coop").Params().context, find_method("coop").Params().position) == (16, "end")
    assert find_method("softcpt").Params().task_context == 4


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (1, 1e-5),
        (2, 2e-3),
        (3, 0.0019980267),  # 0.001 · (1 + cos(π/50))
        (27, 1e-3),
        (50, 7.8853e-6),  # 0.001 · (1 + cos(48π/50))
    ],
)
def test_learning_rate_of_fifty_epochs(epoch, rate):
    assert learning_rate(Recipe(epochs=50), epoch) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (1, 1e-5),
        (2, 0.0019921147),  # 0.001 · (1 + cos(2π/50))
        (18, 0.0),  # after 51 steps of the schedule, the first of which leaves the warm-up: cos(50π/50)
        (35, 0.0019980267),  # 0.001 · (1 + cos(101π/50)): a second period
        (50, 3.14168e-5),  # 0.001 · (1 + cos(146π/50))
    ],
)
def test_learning_rate_of_a_schedule_that_steps_three_times_an_epoch(epoch, rate):
    assert learning_rate(Recipe(epochs=50, schedule_steps=3), epoch) == pytest.approx(rate, rel=1e-4, abs=1e-9)


def test_the_optimiser_gets_each_epoch_s_learning_rate_momentum_and_weight_decay(clip, monkeypatch):
    seen, step = [], torch.optim.SGD.step

    def recording(self, *args, **kwargs):
        (group,) = self.param_groups
        seen.append((group["lr"], group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", recording)
    fitted("shared-coop", clip, make_tasks(), epochs=50, batch=29, lr=0.002, warmup_lr=1e-5)
    rates = [lr for lr, *_ in seen]
    assert len(rates) == 50 and rates[:2] == [1e-5, 2e-3] and rates[26] == pytest.approx(1e-3)
    assert {tuple(rest) for _, *rest in seen} == {(0.9, 5e-4, False, 0)}


def test_every_epoch_draws_each_image_at_most_once_and_drops_the_last_incomplete_batch(clip, monkeypatch):
    tasks = make_tasks()
    _, _, steps = recorded("shared-coop", clip, tasks, monkeypatch)
    assert [len(batch.labels) for batch, _ in steps] == [8] * 12  # 29 images, 4 epochs
    epochs = [
        [image for batch, _ in steps[3 * e : 3 * e + 3] for image in images_of(batch, tasks, e + 1)] for e in range(4)
    ]
    assert all(len(set(images)) == 24 for images in epochs)
    assert len({tuple(images) for images in epochs}) == 4  # reshuffled
    assert len({image for images in epochs for image in images}) > 24  # what is dropped changes


def test_fewer_images_than_a_batch_make_one_batch(clip, monkeypatch):
    _, _, steps = recorded("coop", clip, make_tasks(), monkeypatch, batch=32)
    assert [len(batch.labels) for batch, _ in steps] == [6, 15, 8] * 4  # side by side


def test_epoch_e_uses_view_e_mod_v(clip, monkeypatch):
    tasks = make_tasks()
    tasks[1] = replace(tasks[1], views=tasks[1].views[:2])  # V is each task's own
    _, _, steps = recorded("shared-coop", clip, tasks, monkeypatch, batch=29, epochs=7)
    for e, (batch, _) in enumerate(steps):
        for t, n_views in enumerate((3, 2, 3)):
            own = batch.features[batch.tasks == t]
            view = torch.nn.functional.normalize(tasks[t].views[e % n_views], dim=-1)
            assert torch.allclose(own.sum(dim=0), view.sum(dim=0), atol=1e-5)


def test_joint_loss_is_over_each_image_s_own_classes():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, generator=rng) * 3
    batch = Batch.of(torch.zeros(4, 1), torch.tensor([2, 0, 4, 1]), torch.tensor([5, 2, 7, 5]))
    columns = {2: slice(0, 1), 5: slice(1, 4), 7: slice(4, 9)}  # 1, 3 and 5 classes
    expected = [
        -torch.log_softmax(row[columns[t]], dim=0)[label]
        for row, t, label in zip(logits, batch.tasks.tolist(), batch.labels, strict=True)
    ]
    assert joint_cross_entropy(logits, batch, [1, 3, 5]).item() == pytest.approx(sum(expected).item() / 4, rel=1e-5)


def test_coop_learns_the_same_for_a_task_alone_and_among_others(clip):
    tasks = make_tasks()
    among = fitted("coop", clip, tasks)
    for t, task in enumerate(tasks):
        alone = fitted("coop", clip, [task])
        torch.testing.assert_close(alone.learned["context-0"], among.learned[f"context-{t}"], rtol=1e-4, atol=1e-5)
    other_order = fitted("coop", clip, tasks[::-1])
    torch.testing.assert_close(other_order.learned["context-0"], among.learned["context-2"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bound", [0, 9, 10_000])
def test_how_many_tasks_train_side_by_side_changes_the_steps_not_the_result(clip, bound, monkeypatch):
    """3, 5 and 4 classes: each task by itself, two and one, all together."""
    tasks = make_tasks(shots=(3, 6, 4))  # of different numbers of steps
    monkeypatch.setitem(SIDE_BY_SIDE, "cpu", 0)
    by_itself = fitted("coop", clip, tasks).learned
    monkeypatch.setitem(SIDE_BY_SIDE, "cpu", bound)
    encoded = []
    encode = type(clip.tower).encode
    monkeypatch.setattr(type(clip.tower), "encode", lambda self, p, *a: encoded.append(len(p)) or encode(self, p, *a))
    method = fitted("coop", clip, tasks)
    assert max(encoded) == {0: 1, 9: 2, 10_000: 3}[bound]
    for name, value in method.learned.items():
        torch.testing.assert_close(value, by_itself[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["coop", "shared-coop", "softcpt"])
def test_the_seed_decides_everything_random(clip, name):
    with torch.random.fork_rng():
        first = fitted(name, clip, make_tasks(), seed=1, epochs=2).learned
        torch.rand(1)  # the global generator has no say
        again = fitted(name, clip, make_tasks(), seed=1, epochs=2).learned
    other = fitted(name, clip, make_tasks(), seed=2, epochs=2).learned
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not any(torch.equal(value, other[key]) for key, value in first.items())


def test_progress_counts_every_step(clip):
    calls = []
    found = find_method("coop")
    method = found(found.Params(context=4, **SMALL_RECIPE))
    method.fit(clip, make_tasks(shots=(6, 6, 6)), 1, lambda done, total: calls.append((done, total)))
    total = 4 * (30 // 8)  # of the task with the most: the others are done by then
    assert calls == [(i + 1, total) for i in range(total)]


# ---- finding methods -----------------------------------------------------------------------------------------


class Constant(Method):
    """A third party's method."""

    name = "constant"

    def fit(self, clip, tasks, seed, report):
        self.tasks = tasks

    def predict(self, task, features, class_names=None):
        return torch.zeros(len(features), len(task.class_names))


class Nameless(Constant):
    name = ""


@pytest.fixture
def on_import_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "third_party", SimpleNamespace(Constant=Constant, Nameless=Nameless, number=3))


@pytest.fixture
def plugin(monkeypatch, on_import_path):
    entries = [
        EntryPoint("from-plugin", "third_party:Constant", "bench.methods"),
        EntryPoint("coop", "third_party:Constant", "bench.methods"),
    ]
    monkeypatch.setattr(bench.methods, "entry_points", lambda group: entries if group == "bench.methods" else [])


def test_methods_are_found_by_name():
    assert all(find_method(name).name == name for name in method_names())
    assert {"zero-shot", "coop", "shared-coop", "softcpt"} <= set(method_names())


def test_methods_are_listed_in_the_order_of_the_paper_s_table():
    orders = [find_method(name).order for name in method_names()]
    assert orders == sorted(orders)


def test_methods_are_found_by_module_and_class(on_import_path):
    assert find_method("third_party:Constant") is Constant


def test_methods_are_found_by_entry_point(plugin):
    assert find_method("from-plugin") is Constant
    assert method_names()[-1] == "from-plugin"


def test_a_plug_in_does_not_take_the_place_of_an_own_method(plugin):
    assert find_method("coop").__module__ == "bench.methods.coop"
    assert method_names().count("coop") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cop", r"--methods 'cop' is unknown; did you mean 'coop'\?"),
        ("third_party:Missing", "Missing.*package.module:Class"),
        ("no_such_module:Method", "no_such_module.*package.module:Class"),
        ("third_party:number", "is not a method"),
        ("third_party:Nameless", "is not a method"),
    ],
)
def test_what_is_no_method_is_told(on_import_path, name, message):
    with pytest.raises(UserError, match=message):
        find_method(name)


def test_a_method_without_parameters_takes_the_defaults():
    assert Constant().params == Parameters() and Constant().n_params == 0


# ---- options -------------------------------------------------------------------------------------------------

COOP, SOFTCPT, ZERO = (find_method(name) for name in ("coop", "softcpt", "zero-shot"))


def settings_of(methods, options, recipe=None):
    return [(v.method.name, v.label) for v in variants(methods, options, recipe or [])]


def test_without_options_each_method_has_its_defaults():
    (one,) = variants([COOP], [], [])
    assert (one.params, one.label) == (COOP.Params(), "")


def test_an_option_reaches_its_method_alone():
    coop, softcpt = variants([COOP, SOFTCPT], ["coop.epochs=20", "softcpt.position=front"], [])
    assert (coop.params, softcpt.params) == (COOP.Params(epochs=20), SOFTCPT.Params(position="front"))
    assert (coop.label, softcpt.label) == ("epochs=20", "position=front")


def test_values_take_the_type_of_the_parameter():
    (one,) = variants([COOP], ["coop.lr=1e-3", "coop.joint=true", "coop.context= 8 "], [])
    assert one.params == COOP.Params(lr=0.001, joint=True, context=8)


def test_several_values_make_a_sweep():
    assert settings_of([SOFTCPT], ["softcpt.task_context=1,2,4"]) == [
        ("softcpt", "task_context=1"),
        ("softcpt", "task_context=2"),
        ("softcpt", ""),  # 4 is the default
    ]
    assert len(settings_of([COOP], ["coop.context=4,8", "coop.epochs=1,2,3"])) == 6


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        ('coop.words="a photo of a, well, "', ["a photo of a, well,"]),
        ('coop.words="a photo, of a","an image of a", plain', ["a photo, of a", "an image of a", "plain"]),
        ("coop.words=a photo of a,an image of a", ["a photo of a", "an image of a"]),
        ('coop.words=a 5" plate,it\'s', ['a 5" plate', "it's"]),
        ("coop.words=", [""]),
        ("CoOp.words=one", ["one"]),
    ],
)
def test_a_text_in_double_quotes_keeps_its_commas(option, texts):
    assert [v.params.words for v in variants([COOP], [option], [])] == texts


def test_numbers_with_blanks_after_their_commas_are_several_values():
    assert settings_of([COOP], ["coop.context=4, 8"]) == [("coop", "context=4"), ("coop", "context=8")]


@pytest.mark.parametrize("name", ["CoOp", "coop", "COOP"])
def test_a_method_is_found_whatever_the_case_of_its_name(name):
    assert find_method(name) is COOP


def test_the_same_value_twice_is_one_setting():
    assert len(settings_of([COOP], ["coop.epochs=3,3"])) == 1


def test_an_option_for_all_reaches_the_methods_that_have_it():
    assert settings_of([ZERO, COOP, SOFTCPT], ["all.epochs=7"]) == [
        ("zero-shot", ""),
        ("coop", "epochs=7"),
        ("softcpt", "epochs=7"),
    ]


def test_a_label_follows_from_the_parameters_alone():
    ways = [
        (["coop.context=4", "coop.epochs=7"], []),
        (["coop.epochs=7", "coop.context=4"], []),
        (["all.context=4"], [{}, {"coop": {"epochs": 7}}]),
        ([], [{}, {"coop": {"context": 4, "epochs": 7}}]),
        (["coop.epochs=7"], [{"all": {"lr": 0.1}}, {"coop": {"context": 4}}]),
    ]
    assert [settings_of([COOP], *way) for way in ways] == [[("coop", "epochs=7,context=4")]] * 5


def test_a_recipe_is_named_where_it_differs_from_the_suite_s_own():
    suite, user = {"all": {"epochs": 20, "lr": 0.1}}, {"all": {"epochs": 50, "lr": 0.1}}
    (one,) = variants([COOP], [], [suite, user])
    assert (one.params.epochs, one.label, one.defaults) == (50, "epochs=50", COOP.Params(epochs=20, lr=0.1))
    (back,) = variants([COOP], ["coop.epochs=20"], [suite, user])
    assert back.label == ""


def test_a_suite_s_recipe_stands_between_defaults_and_options():
    (suite_s,) = variants([COOP], [], [{"all": {"epochs": 20, "views": 5}}])
    assert (suite_s.params.epochs, suite_s.label) == (20, "")
    (user_s,) = variants([COOP], ["coop.epochs=50"], [{"all": {"epochs": 20}}])
    assert (user_s.params.epochs, user_s.label) == (50, "epochs=50")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("coop.epochs", "write method.parameter=value"),
        ("epochs=3", "write method.parameter=value"),
        ("coop.epochs=", "'' is not a value of type int"),
        ("softcp.epochs=3", "not among the methods of this run; did you mean 'softcpt'"),
        ("coop.epoch=3", "coop has no parameter 'epoch'; did you mean 'epochs'"),
        ("coop.epochs=many", "'many' is not a value of type int"),
        ("coop.epochs=2.5", "'2.5' is not a value of type int"),
        ("coop.epochs=0", "epochs=0: at least 1"),
        ("coop.batch=-1", "batch=-1: at least 1"),
        ("coop.lr=nan", "lr=nan: not negative and finite"),
        ("coop.lr=-0.1", "lr=-0.1: not negative and finite"),
        ("coop.context=0", "context=0: at least 1"),
        ("coop.joint=yes", "neither true nor false"),
        ("coop.position=left", "'left' is not one of end, middle, front"),
        ("softcpt.task_context=0", "task_context=0: at least 1"),
        ("all.colour=3", "none of the methods has a parameter 'colour'"),
    ],
)
def test_a_bad_option_is_told(option, message):
    with pytest.raises(UserError, match=message):
        variants([COOP, SOFTCPT, ZERO], [option], [])


def test_the_help_of_a_parameter_is_kept_with_it():
    field = param(3, "how deep")
    assert (field.default, field.metadata["help"]) == (3, "how deep")
    assert all(f.metadata.get("help") for f in SOFTCPT.Params.__dataclass_fields__.values())


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["1,2,4"], [1, 2, 4]),
        (["1", "2", "4"], [1, 2, 4]),
        (["1,", "2", "4,8", "16 ,32"], [1, 2, 4, 8, 16, 32]),
        (["3,3", "3"], [3]),
        (["16"], [16]),
    ],
)
def test_lists_of_numbers_take_commas_and_blanks(texts, found):
    assert numbers(texts, "--shots", 1) == found


@pytest.mark.parametrize(("text", "message"), [("1,two", "whole numbers"), ("0,1", "0 is less than 1"), ("", "whole")])
def test_bad_lists_of_numbers_are_told(text, message):
    with pytest.raises(UserError, match=f"--shots .*{message}"):
        numbers([text], "--shots", 1)
