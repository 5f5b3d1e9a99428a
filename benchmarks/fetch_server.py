"""A web on loopback for the benchmarks of fetching: nginx, pictures of a realistic mix, delays.

    python benchmarks/fetch_server.py [--data .data]

makes the pictures and says what they are. They are drawn from a seed: structure of all sizes as
photographs have it (amplitude falls as one over frequency), hard edges, and grain, so that a JPEG
of quality 85 takes 0.1 to 0.2 bytes a pixel as a photograph does. Four of five are JPEG (a quarter
of these progressive), the rest PNG (drawings with flat areas) and WebP by halves.

Real nginx serves them, with Debian's echo module for the time to the first byte, which a hash of
the URL decides: half of the URLs wait less than the geometric mean of the two ends. A file stands
under any number of URLs, ``http://HOST/NUMBER/FILE``, and any host name will do: whoever maps names
to the port (``loopback={"*.test": server.address}``) has a host for each, and others ask
``server.address`` itself. All in one nginx process, which is ended with the context.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
ECHO_MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
HOW_TO_INSTALL = "apt-get install nginx-light libnginx-mod-http-echo"

_DELAY_STEPS = 32
_PATIENCE_S = 20.0
_KINDS = ("jpg", "jpg", "jpg", "jpg", "jpg", "jpg", "jpg", "jpg", "png", "webp")
_ASPECTS = (1, 4 / 3, 3 / 2, 16 / 9, 2)
_UPRIGHT_SHARE = 0.3
_LEAN = 1.23  # 0.5**1.23 of the way from log 300 to log 3000 is log 800

Pixels = npt.NDArray[np.uint8]


class Mix(NamedTuple):
    """What pictures to make: how many, and how long their longer side is, in pixels.

    The longer side's logarithm is spread evenly, but for a lean to the small: of 300 to 3000 px
    half are below 800, which is more than on the web: of LAION-400M's pictures with a side of 256
    px or more, half are below 512. The shorter side is at least half as long.
    """

    pictures: int = 300
    shortest: int = 300
    longest: int = 3000
    seed: int = 0

    def sizes(self) -> list[tuple[int, int]]:
        """Return the (width, height) of every picture."""
        rng = np.random.default_rng(self.seed)
        reach = np.log(self.longest / self.shortest)
        long = self.shortest * np.exp(reach * rng.random(self.pictures) ** _LEAN)
        short = long / rng.choice(_ASPECTS, self.pictures)
        upright = rng.random(self.pictures) < _UPRIGHT_SHARE
        sides = np.where(upright, [short, long], [long, short]).round().astype(int)
        return [(int(width), int(height)) for width, height in sides.T]


class Pool(NamedTuple):
    """Pictures on disk: their folder, file names, and how many pixels and bytes they have."""

    folder: Path
    files: list[str]
    pixels: list[int]
    sizes_bytes: list[int]

    def paths(self, count: int) -> list[str]:
        """Return so many URL paths, all different, that go through the files in turns."""
        return [f"/{i:06d}/{self.files[i % len(self.files)]}" for i in range(count)]


def pool(data: Path, mix: Mix) -> Pool:
    """Return pictures of a mix, made on the first call: about 0.2 s and 0.3 MB each."""
    folder = data / "fetch-pictures" / "-".join(str(value) for value in mix)
    files = [f"{i:04d}.{_KINDS[i % len(_KINDS)]}" for i in range(mix.pictures)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (width, height)) in enumerate(zip(files, mix.sizes(), strict=True)):
        if not (folder / name).exists():
            part = folder / f"part-{name}"  # the encoder goes by the suffix
            rng = np.random.default_rng([mix.seed, number])
            cv2.imwrite(str(part), *_drawn(rng, width, height, part.suffix))
            part.rename(folder / name)
    pixels = [width * height for width, height in mix.sizes()]
    return Pool(folder, files, pixels, [(folder / name).stat().st_size for name in files])


def _drawn(
    rng: np.random.Generator, width: int, height: int, suffix: str
) -> tuple[Pixels, list[int]]:
    """Return a picture, and the encoder's options."""
    if suffix == ".png":
        return _drawing(rng, width, height), [cv2.IMWRITE_PNG_COMPRESSION, 6]
    if suffix == ".webp":
        return photograph(rng, width, height), [cv2.IMWRITE_WEBP_QUALITY, 80]
    progressive = int(rng.random() < 0.25)
    options = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    return photograph(rng, width, height), options


def photograph(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Return a picture with detail of all sizes, some hard edges, and grain."""
    size = (width, height)
    light = np.zeros((height, width), np.float32)
    cells = 3
    while cells < max(size):
        noise = rng.standard_normal((cells, cells), np.float32)
        light += cv2.resize(noise, size, interpolation=cv2.INTER_LINEAR) * (90 / cells**0.8)
        cells *= 2
    for _ in range(12):
        corners = rng.integers(0, max(size), (4, 2))
        cv2.fillPoly(mask := np.zeros((height, width), np.uint8), [corners.astype(np.int32)], 1)
        light += mask * np.float32(rng.normal(0, 18))
    light += rng.standard_normal((height, width), np.float32) * 4
    colours = [cv2.resize(rng.integers(90, 166, (6, 6), np.uint8), size) for _ in range(2)]
    grey = np.clip(light + 128, 0, 255).astype(np.uint8)
    bgr: Pixels = cv2.cvtColor(cv2.merge([grey, *colours]), cv2.COLOR_YCrCb2BGR).astype(np.uint8)
    return bgr


def _drawing(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Return flat areas and lines on a ground that changes slowly; a twelfth of it a photograph."""
    ground = rng.integers(180, 256, (2, 2, 3), np.uint8)
    picture: Pixels = cv2.resize(ground, (width, height)).astype(np.uint8)
    for _ in range(40):
        corners = rng.integers(0, max(width, height), (4, 2)).astype(np.int32)
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.polylines(picture, [corners], True, colour, 2, cv2.LINE_AA)
    picture[: height // 12] = photograph(rng, width, height // 12)
    return picture


class Request(NamedTuple):
    """One line of the server's log. Times are seconds; ``began_s`` since the epoch."""

    began_s: float
    took_s: float
    host: str
    uri: str
    status: int


class Server(NamedTuple):
    """A running server: where it listens, ``127.0.0.1:PORT``, its log, and its process."""

    address: str
    log: Path
    pid: int

    def requests(self) -> Iterator[Request]:
        """Yield every request answered so far, in the order in which they ended."""
        with self.log.open() as lines:
            for line in lines:
                ended, took, host, uri, status = line.rstrip("\n").split("\t")
                yield Request(float(ended) - float(took), float(took), host, uri, int(status))

    def cpu_s(self) -> float:
        """Return the CPU seconds it has used so far."""
        return cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a running process has used, its children not included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(pictures: Pool, delays_ms: tuple[float, float] = (20, 500)) -> Iterator[Server]:
    """Serve the pictures within the context.

    Args:
        pictures: what is under the URLs.
        delays_ms: the least and the most that a URL waits for its first byte.
    """
    if not (Path(NGINX).exists() and ECHO_MODULE.exists()):
        raise SystemExit(f"nginx with its echo module is needed: {HOW_TO_INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), _free_port()
        config = home / "nginx.conf"
        config.write_text(_config(home, port, pictures.folder.resolve(), delays_ms))
        process = subprocess.Popen([NGINX, "-p", folder, "-c", str(config), "-e", "stderr"])
        try:
            _wait_for(process, port)
            yield Server(f"127.0.0.1:{port}", home / "access.log", process.pid)
        finally:
            process.terminate()
            process.wait()


def _config(home: Path, port: int, folder: Path, delays_ms: tuple[float, float]) -> str:
    steps = np.geomspace(*delays_ms, _DELAY_STEPS) / 1000
    share = 100 / _DELAY_STEPS
    delays = [f"{share:.2f}% {delay_s:.3f};" for delay_s in steps[:-1]] + [f"* {steps[-1]:.3f};"]
    temporary = "\n".join(
        f"  {kind}_temp_path {home / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return _CONFIG.format(
        module=ECHO_MODULE,
        home=home,
        port=port,
        folder=folder,
        delays="\n    ".join(delays),
        temporary=temporary,
    )


_CONFIG = """
load_module {module};
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {home}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
{temporary}
  types {{ image/jpeg jpg; image/png png; image/webp webp; }}
  log_format told "$msec\t$request_time\t$host\t$request_uri\t$status";
  access_log {home}/access.log told;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=4000 inactive=300s;
  keepalive_timeout 75s;
  keepalive_requests 1000000;
  split_clients "$request_uri" $delay {{
    {delays}
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /robots.txt {{
      default_type text/plain;
      return 200 "User-agent: *\\nAllow: /\\n";
    }}
    location ~ ^/[0-9]+/(?<file>[0-9]+[.][a-z]+)$ {{
      echo_sleep $delay;
      echo_exec /pictures/$file;
    }}
    location /pictures/ {{
      internal;
      alias {folder}/;
    }}
  }}
}}
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("nginx did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    made = pool(parser.parse_args().data, Mix())
    by_kind: dict[str, list[list[int]]] = {}
    for name, *picture in zip(made.files, made.pixels, made.sizes_bytes, strict=True):
        by_kind.setdefault(name.rpartition(".")[2], []).append(picture)
    for kind, pictures in by_kind.items():
        pixels, sizes = np.array(pictures).T
        told = {
            "kind": kind,
            "pictures": len(pictures),
            "median_megapixels": round(float(np.median(pixels)) / 1e6, 2),
            "mean_megapixels": round(float(pixels.mean()) / 1e6, 2),
            "mean_kilobytes": round(float(sizes.mean()) / 1e3),
            "bytes_per_pixel": round(float(sizes.sum() / pixels.sum()), 3),
        }
        print(json.dumps(told))


if __name__ == "__main__":
    main()
