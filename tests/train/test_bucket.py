"""Blocks from a bucket: a real S3 server, near and far, at fault and gone."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from benchmarks.s3_proxy import Fault
from benchmarks.s3_server import S3Server
from tests.range_server import Fault as RangeFault
from tests.range_server import (
    RangeServer,
    another_range,
    body_longer_than_its_range,
    body_shorter_than_its_range,
    closed_before_the_head,
    closed_mid_body,
    good,
    shorter_range,
    silence,
    status,
    whole_file,
)
from tests.train.far_shards import Far, Opened, read, upload
from wit_builder import storage
from wit_builder.errors import GoneError, ShardFormatError, StorageError
from wit_builder.shards.read import Dataset
from wit_train import bucket
from wit_train import source as source_module

MakeShards = Callable[..., str]


@pytest.mark.s3
def test_blocks_are_read_from_a_bucket(opened: Opened, far: Far) -> None:
    """One request a block, and the same bytes as on disk; also by sixteen threads."""
    source = opened(far.dataset)
    assert far.is_whole(source)
    assert far.proxy.requests == far.dataset.blocks.num_rows
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: far.is_whole(source), range(16)))
    assert source.retries == 0


FAULTS = {
    "cut": Fault("cut", at=5000),
    "cut before the body": Fault("cut", at=0),
    "stall": Fault("stall", at=5000),
    "flipped bit": Fault("flip", at=5000),
    "busy": Fault("status", status=503),
    "too many": Fault("status", status=429),
    "at fault": Fault("status", status=500),
}


@pytest.mark.s3
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_asked_for_again(opened: Opened, far: Far, fault: Fault) -> None:
    """Once is enough, and the bytes are as without the fault."""
    source = opened(far.dataset, stall_s=3.0 if fault.kind == "stall" else 30.0)
    far.proxy.faults.append(fault)
    assert far.is_whole(source)
    assert source.retries == 1


@pytest.mark.s3
def test_idle_connections_may_be_closed_by_the_server(opened: Opened, far: Far) -> None:
    """The range is asked for anew at once."""
    source = opened(far.dataset)
    assert far.is_whole(source)
    far.proxy.hang_up()
    assert far.is_whole(source)
    assert source.retries <= 1


@pytest.mark.s3
def test_bytes_that_stay_wrong_are_refused(opened: Opened, far: Far) -> None:
    """After two reads, naming the shard's place and the byte."""
    far.proxy.always = Fault("flip", at=3)
    source = opened(far.dataset)
    with pytest.raises(ShardFormatError, match=rf"{far.dataset.url}/000000\.tar byte 0"):
        read(source, 0)
    assert far.proxy.requests == 2


@pytest.mark.s3
def test_a_shard_in_a_bucket_that_was_cut_short(opened: Opened, far: Far) -> None:
    """A block beyond the end, and one that reaches beyond it."""
    source = opened(far.dataset)
    tar = Path(far.local.shard_url(0)).read_bytes()
    offsets = far.dataset.blocks["offset"].to_pylist()
    storage.publish_bytes(far.dataset.shard_url(0), tar[: offsets[1] + 600])
    for block in (1, 2):
        with pytest.raises(ShardFormatError, match="cut short"):
            read(source, block)


@pytest.mark.s3
def test_what_is_gone_is_told_at_once(opened: Opened, far: Far) -> None:
    """A shard, or the bucket."""
    storage.remove(far.dataset.shard_url(0))
    source = opened(far.dataset)
    with pytest.raises(GoneError, match=r"no such shard.*000000\.tar"):
        read(source, 0)
    elsewhere = opened(replace(far.dataset, url="s3://wit-nowhere/shards"))
    with pytest.raises(GoneError, match="the bucket is gone"):
        read(elsewhere, 0)
    assert source.retries == elsewhere.retries == 0


@pytest.mark.s3
def test_a_deadline_ends_the_patience(opened: Opened, far: Far) -> None:
    """The error says how long it was tried, and what the last answer was."""
    far.proxy.always = Fault("status", status=503)
    source = opened(far.dataset, deadline_s=3.0)
    with pytest.raises(StorageError, match=r"cannot read for 3 s: the server answers 503"):
        read(source, 0)
    assert 2 <= far.proxy.requests <= 20


@pytest.mark.s3
def test_closing_ends_a_read_that_waits(opened: Opened, far: Far) -> None:
    """At the latest when its connection has been silent for long enough."""
    far.proxy.always = Fault("stall", at=5000)
    source = opened(far.dataset, stall_s=0.5)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, source, 0)
        while not far.proxy.stalled.wait(0.01):
            assert not reading.done()
        source.close()
        with pytest.raises(StorageError, match="closed"):
            reading.result()


@pytest.mark.s3
def test_no_credentials(
    opened: Opened, far: Far, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line says what to set."""
    without_account(monkeypatch, tmp_path)
    with pytest.raises(StorageError, match=r"no credentials .* set AWS_ACCESS_KEY_ID"):
        read(opened(far.dataset), 0)


@pytest.mark.s3
def test_wrong_credentials_are_not_repeated(
    opened: Opened, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's refusal is told, neither key nor secret."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hush-hush")
    s3fs.S3FileSystem.clear_instance_cache()
    source = opened(far.dataset)
    with pytest.raises(StorageError, match="403 InvalidAccessKeyId") as caught:
        read(source, 0)
    assert "hush" not in str(caught.value)
    assert source.retries == 0


@pytest.mark.s3
def test_a_profile_says_who_and_where(
    opened: Opened, far: Far, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys, endpoint and region come from the files that s3fs takes them from, too."""
    without_account(monkeypatch, tmp_path)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    keys = "aws_access_key_id = test-key\naws_secret_access_key = test-secret\n"
    place = f"endpoint_url = {far.proxy.endpoint}\nregion = eu-test-1\n"
    (tmp_path / "credentials").write_text(f"[mine]\n{keys}")
    (tmp_path / "config").write_text(f"[profile mine]\n{place}")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert far.is_whole(opened(far.dataset))


@pytest.mark.s3
def test_nobody_signs_where_none_is_to(
    opened: Opened, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anonymous request goes out without credentials; this server does not take it."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="403 AccessDenied"):
        read(opened(far.dataset), 0)


def without_account(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take everything away by which a client could know who it is."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.s3
@pytest.mark.usefixtures("fresh_clients")
def test_a_server_that_is_killed_and_started_again(
    opened: Opened,
    shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reads under way go on where they were; nothing comes out wrong."""
    with S3Server(tmp_path, "wit-restart") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        upload(shards, "s3://wit-restart/shards")
        local = Dataset.open(shards)
        monkeypatch.setattr(source_module, "_LONGEST_WAIT_S", 0.5)  # it answers 500 for a while
        source, many = opened(Dataset.open("s3://wit-restart/shards")), threading.Event()
        down = threading.Event()

        def reads(number: int) -> bool:
            right = True
            for turn in range(40):
                if turn == 10:
                    many.set()
                    down.wait()
                block = (number + turn) % local.blocks.num_rows
                right &= read(source, block) == local.block_bytes(block)
            return right

        with ThreadPoolExecutor(8) as pool:
            results = pool.map(reads, range(8))
            many.wait()
            server.kill()
            down.set()
            server.start()
            assert all(results)
        assert source.retries >= 8


@pytest.mark.s3
@pytest.mark.usefixtures("fresh_clients")
def test_a_key_may_have_any_characters(opened: Opened, s3_folder: str, shards: str) -> None:
    """What a URL would read otherwise is escaped, in the address as in the signature."""
    place = f"{s3_folder}/a b+c=ü,~('d')&%20[1]"
    upload(shards, place)
    source, local = opened(Dataset.open(place)), Dataset.open(shards)
    assert read(source, 0) == local.block_bytes(0)


def asked_by_hand(
    server: RangeServer, local: Dataset, monkeypatch: pytest.MonkeyPatch
) -> tuple[Dataset, list[str]]:
    """Return the data set as in a bucket of that server, and who signs the requests it gets."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    signers: list[str] = []

    def told(then: RangeFault) -> RangeFault:
        def fault(to: Any, start: int, end: int) -> None:
            signers.append(to.headers["Authorization"])
            then(to, start, end)

        return fault

    for answers in server.faults.values():
        answers[:] = [told(answer) for answer in answers]
    return replace(local, url="s3://wit-by-hand/shards"), signers


def expired(to: Any, *_: int) -> None:
    """Answer as S3 does where a session has ended."""
    body = b"<Error><Code>ExpiredToken</Code><Message>hush</Message></Error>"
    to.head(400, len(body))
    to.wfile.write(body)


@pytest.mark.usefixtures("fresh_clients")
@pytest.mark.parametrize(
    "fault",
    [
        expired,
        silence,
        closed_mid_body,
        closed_before_the_head,
        another_range,
        shorter_range,
        body_shorter_than_its_range,
        body_longer_than_its_range,
    ],
)
def test_what_passes_by_other_servers(
    opened: Opened, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, fault: RangeFault
) -> None:
    """A session that ended, no answer, a broken one, and one to another question."""
    local = Dataset.open(make_shards(40, per_shard=40))
    offset = local.blocks["offset"].to_pylist()[1]
    with RangeServer(Path(local.shard_url(0)).read_bytes()) as server:
        server.faults[offset] = [fault]
        far, signers = asked_by_hand(server, local, monkeypatch)
        source = opened(far, stall_s=3.0 if fault is silence else 30.0)
        assert read(source, 1) == local.block_bytes(1)
        assert source.retries == len(signers) == 1


@pytest.mark.usefixtures("fresh_clients")
def test_the_environment_is_read_once(
    opened: Opened, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As s3fs reads it: what obstore would take from it otherwise is not taken."""
    local = Dataset.open(make_shards(20))
    with RangeServer(Path(local.shard_url(0)).read_bytes()) as server:
        server.faults[0] = [good]
        far, signers = asked_by_hand(server, local, monkeypatch)
        monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "mine", "secret": "hush"})
        monkeypatch.setenv("AWS_SESSION_TOKEN", "of another account")
        monkeypatch.setenv("AWS_REGION", "eu-other-1")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        assert read(opened(far), 0) == local.block_bytes(0)
    assert "mine/" in signers[0]
    assert "/us-east-1/s3/" in signers[0]
    assert "security-token" not in signers[0]


@pytest.mark.usefixtures("fresh_clients")
def test_a_bucket_in_another_region_is_followed(
    opened: Opened, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its region is asked for, and the next request is signed for it."""
    local = Dataset.open(make_shards(20))
    with RangeServer(Path(local.shard_url(0)).read_bytes()) as server:
        server.headers["x-amz-bucket-region"] = "eu-test-1"
        server.faults[0] = [status(301), good]
        far, signers = asked_by_hand(server, local, monkeypatch)
        source = opened(far)
        assert read(source, 0) == local.block_bytes(0)
        assert ["/us-east-1/s3/" in signers[0], "/eu-test-1/s3/" in signers[1]] == [True, True]
        assert source.retries == 1


@pytest.mark.usefixtures("fresh_clients")
def test_a_server_without_ranges_is_refused(
    opened: Opened, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: it would send whole shards."""
    local = Dataset.open(make_shards(20))
    with RangeServer(Path(local.shard_url(0)).read_bytes()) as server:
        server.faults[0] = [whole_file]
        source = opened(asked_by_hand(server, local, monkeypatch)[0])
        with pytest.raises(StorageError, match="non-partial"):
            read(source, 0)
        assert source.retries == 0


def test_what_obstore_cannot_name_is_read_otherwise() -> None:
    """Access points, directory buckets, and keys whose parts are empty or dots."""
    assert bucket.is_plain("s3://wit/a b/..c/%20/000000.tar")
    odd = ["arn:aws:s3:eu-west-1:1:accesspoint/p/k", "wit--euw1-az1--x-s3/k", "wit//k", "wit/../k"]
    assert not any(bucket.is_plain(f"s3://{name}") for name in odd)


@pytest.mark.usefixtures("fresh_clients")
@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_a_bucket_is_asked_by_https(
    opened: Opened, make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its certificate is trusted: AWS_CA_BUNDLE names another authority, as for s3fs."""
    local = Dataset.open(make_shards(20))
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    names += ["-addext", "basicConstraints=critical,CA:FALSE"]  # rustls takes no CA for a server
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key)]
    subprocess.run([*command, "-out", certificate, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with RangeServer(Path(local.shard_url(0)).read_bytes()) as server:
        server.speak_tls(context)
        monkeypatch.setenv(
            "AWS_ENDPOINT_URL", server.endpoint.replace("http://127.0.0.1", "https://localhost")
        )
        far = replace(local, url="s3://wit-tls/shards")
        with pytest.raises(StorageError, match=r"not trusted.*AWS_CA_BUNDLE"):
            read(opened(far), 0)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        s3fs.S3FileSystem.clear_instance_cache()
        assert read(opened(far), 0) == local.block_bytes(0)
