"""A job from its assignment to its exit, when nothing goes wrong."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.component.workers.node_harness import Node, assignment, bundle, name_of, wait_until
from tests.component.workers.worker_service_fake import FakeService

SCRIPT = """
from tools import *
print("hello from rank", RANK, sys.argv)
print("to stderr", file=sys.stderr)
for step in range(5):
    log(step, loss=float("nan") if step == 2 else 1 / (step + 1))
channel = Channel()
channel.say(op="progress", step=4, total_steps=5)
answer = checkpoint(channel, 5, {"weights.bin": b"w" * 1000, "sub/a": b"a"}, accuracy=0.5)
assert answer["op"] == "committed" and os.path.exists(answer["path"] + "/sub/a"), answer
"""


def test_a_script_runs_and_everything_it_said_arrives(node: Node, service: FakeService) -> None:
    attempt = service.add_attempt(
        "att_1",
        assignment(
            service,
            bundle(train=SCRIPT),
            command={"kind": "script", "path": "train.py", "args": ["--epochs", "3"]},
        ),
    )

    exit_record = service.wait_for_exit("att_1")

    assert exit_record == {
        "outcome": "succeeded",
        "reason": None,
        "message": None,
        "ranks": [{"rank": 0, "code": 0, "signal": None, "class": "ok", "last_step": 4}],
    }
    assert attempt.text(0, "stdout") == "hello from rank 0 ['train.py', '--epochs', '3']\n"
    assert attempt.text(0, "stderr") == "to stderr\n"
    points = attempt.points["0", "loss"]
    assert [(step, value) for step, _time, value in points] == [
        (0, 1.0), (1, 0.5), (2, "NaN"), (3, 0.25), (4, 0.2),
    ]  # fmt: skip
    (checkpoint,) = attempt.checkpoints.values()
    assert checkpoint["state"] == "committed"
    assert checkpoint["step"] == 5
    assert checkpoint["metrics"] == {"accuracy": 0.5}
    assert checkpoint["received"] == {"weights.bin": b"w" * 1000, "sub/a": b"a"}
    assert attempt.leases[-1]["progress"] == {
        "step": 4, "total_steps": 5, "steps_per_second": None,
    }  # fmt: skip
    assert attempt.exit_count == 1
    wait_until(node.is_quiet)


def test_a_short_job_costs_few_calls(any_node: Node, service: FakeService) -> None:
    code = bundle(train='print("a line")')
    service.add_attempt("att_1", assignment(service, code))
    service.wait_for_exit("att_1")
    service.calls.clear()

    service.add_attempt("att_2", assignment(service, code))
    service.wait_for_exit("att_2")

    calls = [(method, path) for method, path, _ in service.calls if "att_2" in path]
    assert sorted(calls) == [
        ("GET", "/v1/attempts/att_2/assignment"),
        ("POST", "/v1/attempts/att_2/exit"),
        ("POST", "/v1/attempts/att_2/lease"),
        ("PUT", "/v1/attempts/att_2/logs/0/stdout"),
    ]


def test_a_rank_has_the_environment_of_the_contract_and_nothing_else(
    node: Node, service: FakeService
) -> None:
    attempt = service.add_attempt(
        "att_1",
        assignment(
            service,
            bundle(
                train="""
import json, os
print(json.dumps(dict(os.environ)))
shown = open("/proc/self/environ").read().split("\\0")
print(json.dumps(dict(entry.split("=", 1) for entry in shown if entry)))
print(json.dumps([os.getcwd(), oct(os.umask(0)), sorted(map(int, os.listdir("/proc/self/fd")))]))
"""
            ),
            env={"MY_VALUE": "1", "RANK": "9"},
            secrets={"MY_TOKEN": "secret"},
            workers=1,
        ),
    )

    service.wait_for_exit("att_1")

    lines = attempt.text(0, "stdout").splitlines()
    environment, shown = json.loads(lines[0]), json.loads(lines[1])
    folder = str(node.run_folder("att_1"))
    ports = {environment.pop("MASTER_PORT"), environment.pop("TF_CONFIG")}
    assert len(ports) == 2
    assert environment.pop("PATH").startswith(str(node.job_python.parent))
    assert environment == {
        "HOME": f"{folder}/home",
        "LANG": "C.UTF-8",
        "TMPDIR": f"{folder}/tmp",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "TRAINMASTER_RUN": f"{folder}/run.json",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "MY_VALUE": "1",
        "MY_TOKEN": "secret",
    }
    assert {key: shown[key] for key in environment} == environment
    assert set(shown) - set(environment) == {"PATH", "MASTER_PORT", "TF_CONFIG"}
    cwd, umask, descriptors = json.loads(lines[2])
    assert (cwd, umask) == (f"{folder}/code", "0o77")
    assert descriptors[:3] == [0, 1, 2]
    assert len(descriptors) == 5, "beyond those only where its stacks go, and the listing's own"


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({}, id="forked from the preloader"),
        pytest.param({"PYTHONHASHSEED": "0"}, id="executed, for what is read at the start"),
    ],
)
def test_a_bundle_with_our_names_gets_its_own_modules(
    env: dict[str, str], any_node: Node, service: FakeService
) -> None:
    code = bundle(
        train="""
import api.thing, models.net, workers, scheduler, logging, tempfile, json, sys, os
print(api.thing.NAME, models.net.NAME, workers.NAME, scheduler.NAME, logging.NAME, tempfile.NAME)
print(json.__file__.startswith(os.getcwd()), __name__, __file__, sys.path[0])
""",
        **{
            "api.__init__": "",
            "api.thing": "NAME = 'my api'",
            "models.net": "NAME = 'my models'",
            "workers.__init__": "NAME = 'my workers'",
            "scheduler": "NAME = 'my scheduler'",
            "logging": "NAME = 'my logging'",
            "tempfile": "NAME = 'my tempfile'",
        },
    )
    attempt = service.add_attempt("att_1", assignment(service, code, env=env))

    exit_record = service.wait_for_exit("att_1")

    folder = any_node.run_folder("att_1") / "code"
    assert exit_record["outcome"] == "succeeded", attempt.text(0, "stderr")
    assert attempt.text(0, "stdout").splitlines() == [
        "my api my models my workers my scheduler my logging my tempfile",
        f"False __main__ {folder}/train.py {folder}",
    ]


@pytest.mark.parametrize(
    ("script", "code", "stderr"),
    [
        pytest.param(
            "import sys; sys.exit(3)", 3, "", id="the code of SystemExit"
        ),
        pytest.param(
            "raise SystemExit('no data')", 1, "no data\n", id="the text of SystemExit is printed"
        ),
        pytest.param(
            "def f():\n    1 / 0\nf()\n",
            1,
            'Traceback (most recent call last):\n  File "{code}/train.py", line 3, in <module>\n'
            '    f()\n  File "{code}/train.py", line 2, in f\n    1 / 0\n    ~~^~~\n'
            "ZeroDivisionError: division by zero\n",
            id="a traceback has no frames of ours",
        ),
        pytest.param("print(", 1, "SyntaxError", id="a syntax error is a traceback"),
    ],
)  # fmt: skip
def test_a_forked_rank_ends_as_the_interpreter_would(
    script: str, code: int, stderr: str, any_node: Node, service: FakeService
) -> None:
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    exit_record = service.wait_for_exit("att_1")

    assert exit_record["ranks"][0]["code"] == code
    wanted = stderr.replace("{code}", str(any_node.run_folder("att_1") / "code"))
    if "Traceback" in wanted or not wanted:
        assert attempt.text(0, "stderr") == wanted
    else:
        assert wanted in attempt.text(0, "stderr")


def test_atexit_threads_and_unflushed_output_are_honoured(
    any_node: Node, service: FakeService
) -> None:
    script = """
import atexit, sys, threading, time
atexit.register(print, "atexit")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
sys.stdout.write("main, no newline")
sys.stdout.write("\\n")
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    service.wait_for_exit("att_1")

    assert attempt.text(0, "stdout") == "main, no newline\nthread\natexit\n"


def test_a_module_runs_as_main(any_node: Node, service: FakeService) -> None:
    code = bundle(
        **{
            "package.__init__": "",
            "package.cli": "import sys; print(__name__, __package__, sys.argv)",
        }
    )
    command = {"kind": "module", "module": "package.cli", "args": ["-x"]}
    attempt = service.add_attempt("att_1", assignment(service, code, command=command))

    service.wait_for_exit("att_1")

    path = any_node.run_folder("att_1") / "code/package/cli.py"
    assert attempt.text(0, "stdout") == f"__main__ package ['{path}', '-x']\n"


def test_processes_pickle_what_main_defines(any_node: Node, service: FakeService) -> None:
    script = """
import multiprocessing
def double(x):
    return 2 * x
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [1, 2]))
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    exit_record = service.wait_for_exit("att_1")

    assert attempt.text(0, "stdout") == "[2, 4]\n", attempt.text(0, "stderr")
    assert exit_record["outcome"] == "succeeded"


def test_inputs_and_the_checkpoint_to_resume_are_staged_and_checked(
    any_node: Node, service: FakeService
) -> None:
    script = """
from tools import *
print(open(RUN["inputs"]["train"]).read(), sorted(os.listdir(RUN["inputs"]["corpus"])))
print(RUN["resume"]["step"], open(RUN["resume"]["path"] + "/sub/w").read())
"""
    corpus = any_node.folder.parent / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").touch()
    train, weights = service.add_file("t", b"the data"), service.add_file("w", b"the weights")
    document = assignment(
        service,
        bundle(train=script),
        inputs=[
            {"name": "train", "kind": "file", **train},
            {"name": "corpus", "kind": "dir", "path": str(corpus)},
        ],
        resume={
            "checkpoint_id": "ckpt_1",
            "step": 7,
            "files": [
                {"path": "sub/w", **{k: weights[k] for k in ("url", "size_bytes", "sha256")}}
            ],
        },
    )
    attempt = service.add_attempt("att_1", document)

    service.wait_for_exit("att_1")

    assert attempt.text(0, "stdout").splitlines() == ["the data ['a.txt']", "7 the weights"]


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        pytest.param(
            {"command": {"kind": "script", "path": "main.py", "args": []}},
            "SetupFailed", "no file main.py", id="an entrypoint that is not in the bundle",
        ),
        pytest.param(
            {"inputs": [{"name": "d", "kind": "dir", "path": "/no/such/folder"}]},
            "DataUnavailable", "/no/such/folder is not a folder", id="a folder that is not there",
        ),
        pytest.param(
            {"environment": {"python": "2.6", "requirements": []}},
            "SetupFailed", "python 2.6 is not on this node", id="a python that is not there",
        ),
        pytest.param(
            {"environment": {"python": None, "requirements": ["-e ."]}},
            "SetupFailed", "is an option", id="a requirement that is an option",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_set_up_fails_with_the_reason(
    change: dict[str, Any], reason: str, message: str, any_node: Node, service: FakeService
) -> None:
    service.add_attempt("att_1", assignment(service, bundle(train="pass"), **change))

    exit_record = service.wait_for_exit("att_1")

    assert (exit_record["outcome"], exit_record["reason"]) == ("failed", reason)
    assert message in exit_record["message"]
    wait_until(any_node.is_quiet)


def test_bytes_with_another_hash_are_never_used(any_node: Node, service: FakeService) -> None:
    code = bundle(train="print('ran')")
    document = assignment(service, code)
    document["code"]["sha256"] = hashlib.sha256(b"other").hexdigest()
    attempt = service.add_attempt("att_1", document)

    exit_record = service.wait_for_exit("att_1")

    assert exit_record["reason"] == "StorageUnavailable"
    assert attempt.logs == {}


def test_many_lines_and_a_megabyte_of_output_arrive_whole(
    any_node: Node, service: FakeService
) -> None:
    script = """
from tools import *
for number in range(30_000):
    print(number, "x" * 100)
for step in range(3000):
    log(step, **{f"key{i}": float(step * i) for i in range(8)})
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script)))

    service.wait_for_exit("att_1", limit_s=60)

    wanted = "".join(f"{number} {'x' * 100}\n" for number in range(30_000))
    assert attempt.text(0, "stdout") == wanted
    for i in range(8):
        got = [(step, value) for step, _time, value in attempt.points["0", f"key{i}"]]
        assert got == [(step, float(step * i)) for step in range(3000)]


def test_each_project_has_a_preloader_of_its_own(any_node: Node, service: FakeService) -> None:
    code = bundle(train="import os; print(os.getppid()); print(os.getpgid(os.getppid()))")
    for number, project in enumerate(("default", "other", "other")):
        document = assignment(service, code, project=project)
        service.add_attempt(f"att_{number}", document)
        assert service.wait_for_exit(f"att_{number}")["outcome"] == "succeeded"

    names = [name_of(pid) for pid in any_node.list_fork_servers()]
    assert sorted(names) == ["tm-preloader", "tm-preloader", "tm-zygote"]


@pytest.mark.torch
def test_two_ranks_train_together(torch_node: Node, service: FakeService) -> None:
    script = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Linear(4, 1))
model(torch.ones(2, 4)).sum().backward()
print(dist.get_rank(), dist.get_world_size(), torch.get_num_threads(), model.module.weight.grad)
dist.destroy_process_group()
"""
    attempt = service.add_attempt("att_1", assignment(service, bundle(train=script), workers=2))

    exit_record = service.wait_for_exit("att_1", limit_s=90)

    assert exit_record["outcome"] == "succeeded", attempt.text(0, "stderr")
    for rank in (0, 1):
        assert attempt.text(rank, "stdout") == f"{rank} 2 1 tensor([[2., 2., 2., 2.]])\n"


@pytest.mark.torch
def test_two_executed_ranks_train_together(torch_node: Node, service: FakeService) -> None:
    script = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
print(total.item())
"""
    document = assignment(service, bundle(train=script), workers=2, env={"PYTHONHASHSEED": "0"})
    attempt = service.add_attempt("att_1", document)

    service.wait_for_exit("att_1", limit_s=90)

    assert [attempt.text(rank, "stdout") for rank in (0, 1)] == ["2.0\n", "2.0\n"]
