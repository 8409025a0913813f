"""Several products of one job: one sequence without gap, a spool file each, resumed each where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from rest_backend.daemon.spool import PRODUCT_LIMIT, RowSpool, product_path
from rest_backend.wire.messages import Done, JobStatus, Progress, Rows, Status, Watch
from tests.daemon.fake_method import product_rows
from tests.daemon.harness import Client, Daemon, assemble, client, fake_job

PRODUCTS = ("classes", "confidence", "probability-0", "probability-254")
WINDOW = (0, 0, 64, 100)


def check(blocks: list[tuple[Rows, bytes]], seq: int) -> None:
    """Everything came, once, in order, and is what any attempt must give."""
    assert [rows.seq for rows, _ in blocks] == list(range(seq))
    assert {rows.product for rows, _ in blocks} == set(PRODUCTS)
    for product in PRODUCTS:
        own = [(rows, values) for rows, values in blocks if rows.product == product]
        assert assemble(own, 64, 100) == product_rows(product, WINDOW, 0, 100).tobytes()


def test_every_product_is_delivered_in_one_sequence(served: Client, daemon: Daemon, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, products=",".join(PRODUCTS)))
    done = served.expect(Done)
    assert done.seq == 40
    check(list(served.rows(job, done.seq)), 40)
    status = served.ask(Status(job=job), JobStatus)
    assert (status.rows_done, status.rows, status.next_seq) == (100, 100, 40)
    spool = daemon.home / "spool" / job
    assert {path.name: path.stat().st_size for path in spool.glob("*.raw")} == {
        f"{product}.raw": 6400 for product in PRODUCTS
    }


def test_rows_done_counts_class_rows_while_the_job_runs(served: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = served.submit(fake_job(tmp_path, products=",".join(PRODUCTS), gate=gate))
    assert len(list(served.rows(job, 20))) == 20
    assert served.ask(Status(job=job), JobStatus).rows_done == 50
    gate.touch()
    served.expect(Done)


def test_a_killed_worker_repeats_no_row_of_any_product(
    served: Client, daemon: Daemon, tmp_path: Path
) -> None:
    job = served.submit(
        fake_job(tmp_path, products=",".join(PRODUCTS), stripe=7, stripe2=13, gate=tmp_path / "gate")
    )
    blocks = list(served.rows(job, 28))
    (worker,) = daemon.workers()
    worker.kill()
    served.expect(Progress, lambda event: "lost" in event.note)
    done = served.expect(Done)
    blocks += list(served.rows(job, done.seq, seq=28))
    check(blocks, done.seq)


def test_rows_of_one_product_that_the_disk_lost_are_computed_again(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path, products=",".join(PRODUCTS), gate=tmp_path / "never"))
        assert len(list(served.rows(job, 20))) == 20
        daemon.kill()
    spool = daemon.home / "spool" / job / "confidence.raw"
    spool.write_bytes(spool.read_bytes()[: 2 * 640 + 100])  # of five blocks of ten rows
    daemon.connection_path.unlink()
    with client(daemon.start()) as served:
        served.ask(Watch(job=job), JobStatus)
        done = served.expect(Done)
        check(list(served.rows(job, done.seq)), done.seq)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../classes", "a/b", "Classes", "classes\n", "probability-1234", "probability--1", "con."],
)
def test_a_product_of_no_possible_name_makes_no_file(tmp_path: Path, name: str) -> None:
    spool = RowSpool(tmp_path / "job", (0, 0, 4, 4), 0, {})
    with pytest.raises(ValueError, match="no name of a product"):
        spool.append(name, 0, bytes(16))
    spool.close()
    assert list((tmp_path / "job").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_products_have_a_bound(tmp_path: Path) -> None:
    spool = RowSpool(tmp_path / "job", (0, 0, 1, 1), 0, {})
    for number in range(PRODUCT_LIMIT):
        spool.append(f"probability-{number}", 0, b"x")
    with pytest.raises(ValueError, match="at most"):
        spool.append("one-1", 0, b"x")
    spool.close()


def test_products_resume_each_at_its_own_place(tmp_path: Path) -> None:
    folder, window = tmp_path / "job", (0, 0, 4, 4)
    first = RowSpool(folder, window, 0, {})
    blocks = first.append("classes", 0, bytes(range(8))) + first.append("confidence", 0, b"c" * 4)
    first.append("confidence", 1, b"x" * 4)  # never journaled
    first.close()
    again = RowSpool(folder, window, 2, {"classes": 8, "confidence": 4})
    assert again.append("classes", 0, bytes(range(4))) == []
    blocks += again.append("classes", 1, bytes(range(4, 16)))
    blocks += again.append("confidence", 0, b"c" * 16)
    again.close()
    assert [(block.seq, block.product, block.window) for block in blocks] == [
        (0, "classes", (0, 0, 4, 2)),
        (1, "confidence", (0, 0, 4, 1)),
        (2, "classes", (0, 2, 4, 2)),
        (3, "confidence", (0, 1, 4, 3)),
    ]
    assert product_path(folder, "classes").read_bytes() == bytes(range(16))
    assert product_path(folder, "confidence").read_bytes() == b"c" * 16
