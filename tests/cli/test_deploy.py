"""siamese-proto deploy as people call it."""

from __future__ import annotations

from pathlib import Path

from cli_runner import NET, run


def test_deploy_writes_a_net_that_checks_and_sums_up(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    done = run("deploy", "net.prototxt", "-o", "deploy.prototxt", "--shape", "pairs=7,2,5,4", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "deploy.prototxt: written, with 1 layers\n", "")
    assert run("check", "deploy.prototxt", folder=tmp_path).stdout == "deploy.prototxt: no problems\n"
    done = run("deploy", "net.prototxt", "-o", "both.prototxt", "--both", "--shape", "a=3,1,5,4", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("the shape of 'b' is not known")
    assert not (tmp_path / "both.prototxt").exists()
    shapes = ("--shape", "a=3,1,5,4", "--shape", "b=3,1,5,4")
    assert run("deploy", "net.prototxt", "-o", "both.prototxt", "--both", *shapes, folder=tmp_path).returncode == 0
    assert run("check", "both.prototxt", folder=tmp_path).stdout == "both.prototxt: no problems\n"


def test_deploy_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    for arguments, message in (
        (["-o", "no/d.prototxt"], "cannot write 'no/d.prototxt': there is no folder 'no'\n"),
        (["-o", "d.prototxt", "--output", "ipp"], "the net has no blob 'ipp'; did you mean 'ip'?\n"),
    ):
        done = run("deploy", "net.prototxt", *arguments, folder=tmp_path)
        assert (done.returncode, done.stderr) == (1, message)
