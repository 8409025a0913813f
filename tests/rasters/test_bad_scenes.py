"""Files that cannot be used: a code, a sentence, and nothing else."""

from __future__ import annotations

import os
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rasters import makers
from rest_backend.errors import InputError
from rest_backend.rasters import open_scene


def refusal(path: Path | str, bands: list[int] | None = None) -> InputError:
    with pytest.raises(InputError) as caught, open_scene(path, bands):
        pass
    assert caught.value.exit_code == 2
    assert caught.value.message.endswith(".")
    return caught.value


def test_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.tif")
    assert error.code == "E_SCENE_MISSING" and "none.tif" in error.message


def test_folder_and_pipe(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "E_SCENE_UNREADABLE"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.tif")
        assert refusal(tmp_path / "pipe.tif").code == "E_SCENE_UNREADABLE"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_no_permission(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 5, 5))
    path.chmod(0)
    assert refusal(path).code == "E_SCENE_UNREADABLE"


@pytest.mark.parametrize("content", [b"", b"not a raster\n", bytes(range(256)) * 8])
def test_not_a_raster(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    assert refusal(path).code == "E_SCENE_NOT_RASTER"


def test_a_header_cut_short(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(3, 50, 50))
    path.write_bytes(path.read_bytes()[:100])
    assert refusal(path).code == "E_SCENE_UNREADABLE"


def test_pixels_cut_short(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(3, 400, 400))
    path.write_bytes(path.read_bytes()[:-200_000])
    with open_scene(path) as scene:
        scene.read(0, 10)
        with pytest.raises(InputError) as caught:
            scene.read(300, 100)
    assert caught.value.code == "E_SCENE_DAMAGED" and "300 to 399" in caught.value.message


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=4, count=1, dtype=dtype, transform=makers.NORTH_UP
    ):
        pass
    assert refusal(path).code == "E_SCENE_COMPLEX"


def test_sixty_four_bit_integers(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", np.ones((1, 4, 4), dtype=np.int64))
    assert refusal(path).code == "E_SCENE_TYPE"


@pytest.mark.parametrize("bands", [[1, 2, 3, 4], [0], [-1], []])
def test_bands_the_scene_does_not_have(tmp_path: Path, bands: list[int]) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(3, 5, 5))
    assert refusal(path, bands).code == "E_SCENE_BANDS"


def test_urls_and_archives(tmp_path: Path) -> None:
    for name in ("https://example.org/a.tif", "/vsicurl/https://example.org/a.tif", "/vsizip/a.zip/a.tif"):
        assert refusal(name).code == "E_SCENE_REMOTE"
        assert refusal(Path(name)).code == "E_SCENE_REMOTE"  # of a path, one slash is left


class CountingServer:
    """An HTTP server that counts what it is asked for and has nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> CountingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_file_that_names_a_web_service_fetches_nothing(tmp_path: Path) -> None:
    with CountingServer() as server:
        service = tmp_path / "service.xml"
        service.write_text(
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:{server.port}/${{z}}/${{x}}/${{y}}.png'
            "</ServerUrl></Service><DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY>"
            "<LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY><TileLevel>1</TileLevel><TileCountX>1"
            "</TileCountX><TileCountY>1</TileCountY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
        )
        assert refusal(service).code in ("E_SCENE_REMOTE", "E_SCENE_NOT_RASTER")
        mosaic = tmp_path / "mosaic.vrt"
        mosaic.write_text(
            '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
            f"<SimpleSource><SourceFilename>/vsicurl/http://127.0.0.1:{server.port}/a.tif</SourceFilename>"
            "</SimpleSource></VRTRasterBand></VRTDataset>"
        )
        with pytest.raises(InputError) as caught, open_scene(mosaic) as scene:
            scene.read(0, 9)
        assert caught.value.code == "E_SCENE_DAMAGED"
        assert server.asked == []


def test_python_in_a_vrt_does_not_run(tmp_path: Path) -> None:
    makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 4, 4))
    trace = tmp_path / "ran"
    path = tmp_path / "a.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>run</PixelFunctionType><PixelFunctionLanguage>Python'
        "</PixelFunctionLanguage><PixelFunctionCode><![CDATA[\ndef run(*arguments, **named):\n"
        f"    open({str(trace)!r}, 'w').close()\n]]></PixelFunctionCode><SimpleSource>"
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    with pytest.raises(InputError), open_scene(path) as scene:
        scene.read(0, 4)
    assert not trace.exists()


def tiff_header(width: int, height: int, tile: int) -> bytes:
    """A TIFF that claims a size and holds one empty tile offset: what a bomb looks like."""
    short, long = 3, 4
    entries = [
        (256, long, width), (257, long, height), (258, short, 8), (259, short, 8), (262, short, 1),
        (277, short, 1), (284, short, 1),
        (322, long, tile), (323, long, tile), (324, long, 0), (325, long, 0),
    ]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + packed + struct.pack("<I", 0)


def test_sizes_beyond_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="600000" rasterYSize="9">'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    assert refusal(path).code == "E_SCENE_TOO_LARGE"
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{index}"/>' for index in range(1, 514))
    path.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{bands}</VRTDataset>')
    assert refusal(path).code == "E_SCENE_TOO_LARGE"


def test_blocks_beyond_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_header(16000, 16000, 16000))
    error = refusal(path)
    assert error.code == "E_SCENE_BLOCKS" and "16000 x 16000" in error.message


def test_one_strip_and_scanlines_are_ordinary(tmp_path: Path) -> None:
    stored = makers.ramp(3, 2500, 90)
    for name, options in {
        "strip.tif": {"blockysize": 2500},
        "strip_deflate.tif": {"blockysize": 2500, "compress": "deflate"},
        "lines.png": {"driver": "PNG", "transform": None, "crs": None},
    }.items():
        path = makers.write_raster(tmp_path / name, stored, **options)  # type: ignore[arg-type]
        with open_scene(path) as scene:
            np.testing.assert_array_equal(scene.read(2000, 500)[0], stored[:, 2000:])


def test_odd_names(tmp_path: Path) -> None:
    for name in ("Grün & Söhne #1.tif", "a!b?c=d.tif", "zip+x.tif", "no_ending", "100%.tif"):
        path = makers.write_raster(tmp_path / name, makers.ramp(1, 3, 3))
        with open_scene(str(path)) as scene:
            assert scene.read(0, 3)[1].all()
