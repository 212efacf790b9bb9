"""The faces pipeline without Triton, on real nets, against InsightFace's own classes on the same weights."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import face_standins
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from insightface.app.common import Face
from insightface.model_zoo.scrfd import SCRFD
from PIL import Image

from immich_pipelines import faces_detection, faces_recognition
from immich_pipelines.decode import decode_rgb
from immich_pipelines.errors import BadInput
from immich_pipelines.faces import Faces, FacesPipeline, Job
from immich_pipelines.faces_detection import Bounds, Session, _suppress, decode
from immich_pipelines.stragglers import in_order
from immich_triton.export.faces.check import Originals, cosine
from immich_triton.export.sessions import cpu_session

DATA = Path(__file__).resolve().parents[1] / "data"
WITH_FACES = ("astronaut", "solvay", *face_standins.PORTRAITS)


class CountedSession:
    """A real session, and the batch sizes it was given."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.batches: list[int] = []

    def run(self, output_names: Sequence[str] | None, feed: dict[str, Any], /) -> list[Any]:
        self.batches.append(len(next(iter(feed.values()))))
        return self._session.run(output_names, feed)


class Nets:
    """The exported stand-ins behind ONNX Runtime, and their originals."""

    def __init__(self, models: Path, originals: Path) -> None:
        self.detector = CountedSession(cpu_session(models / "face_det_standin/1/model.onnx"))
        self.recognizer = CountedSession(cpu_session(models / "face_rec_standin/1/model.onnx"))
        onnx.save(face_standins.detector(), originals / "detector.onnx")
        onnx.save(face_standins.recognizer(), originals / "recognizer.onnx")
        self.originals = Originals(originals / "detector.onnx", originals / "recognizer.onnx")
        self.pipeline = FacesPipeline(lambda _name: self.detector, lambda _name: self.recognizer, patience=60)
        self._expected: dict[str, list[Face]] = {}

    def expected(self, name: str) -> list[Face]:
        """What InsightFace finds in a photo."""
        if name not in self._expected:
            self._expected[name] = self.originals.analyse(decode_rgb(photo(name)), 0.7)
        return self._expected[name]

    def run(self, *images: bytes, min_score: float = 0.7, recognition: bool = True) -> list[Faces | Exception]:
        self.detector.batches.clear()
        self.recognizer.batches.clear()
        recognizer = "recognizer" if recognition else None
        return in_order(self.pipeline.run([Job(image, min_score, "detector", recognizer) for image in images]))

    def faces(self, image: bytes, min_score: float = 0.7) -> Faces:
        (answer,) = self.run(image, min_score=min_score)
        assert isinstance(answer, Faces)
        return answer


@pytest.fixture(scope="module")
def nets(face_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Nets:
    return Nets(face_models, tmp_path_factory.mktemp("originals"))


def photo(name: str) -> bytes:
    if name == "solvay":
        return face_standins.solvay().read_bytes()
    if name in face_standins.PORTRAITS:
        return face_standins.portraits()[name].read_bytes()
    return (DATA / "images" / f"{name}.jpg").read_bytes()


def png(image: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return float(inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner))


def deviations(ours: Faces, theirs: Sequence[Face]) -> set[str]:
    """What of *ours* is not equal to what InsightFace computed."""
    found = ours.detections
    if len(found) != len(theirs):
        return {"number of faces"}
    wrong = set()
    for box, score, points, vector, face in zip(
        found.boxes, found.scores, found.landmarks, ours.embeddings, theirs, strict=True
    ):
        wrong |= {
            name
            for name, equal in (
                ("box", overlap(box, face.bbox) >= 0.99),
                ("score", abs(score - face.det_score) <= 1e-3),
                ("landmarks", np.abs(points - face.kps).max() < 0.5),
                ("embedding", cosine(vector, face.embedding) >= 0.9999),
            )
            if not equal
        }
    return wrong


@pytest.mark.parametrize("name", WITH_FACES)
def test_equals_insightface(nets: Nets, name: str) -> None:
    expected = nets.expected(name)
    assert len(expected) == (29 if name == "solvay" else 1)
    assert deviations(nets.faces(photo(name)), expected) == set()


def test_all_images_in_one_batch_equal_each_alone(nets: Nets) -> None:
    names = ("person_a_1.jpg", "solvay", "blank", "astronaut")
    together = nets.run(*map(photo, names))
    assert nets.detector.batches == [4]
    assert nets.recognizer.batches == [31]
    for name, answer in zip(names, together, strict=True):
        assert isinstance(answer, Faces)
        assert deviations(answer, nets.expected(name)) == set()


def test_swapped_colours_are_noticed(nets: Nets) -> None:
    image = decode_rgb(photo("astronaut"))
    assert "embedding" in deviations(nets.faces(png(image[:, :, ::-1])), nets.expected("astronaut"))


def test_a_face_cut_out_without_alignment_is_noticed(nets: Nets) -> None:
    image = decode_rgb(photo("astronaut"))
    (expected,) = nets.expected("astronaut")
    left, top, right, bottom = expected.bbox.astype(int)
    crop = cv2.resize(image[top:bottom, left:right], (112, 112)).astype(np.uint8)
    (embedding,) = faces_recognition.Recognizer(nets.recognizer).embed([crop])
    assert cosine(embedding, expected.embedding) < 0.9999


def test_embeddings_of_other_faces_are_noticed(nets: Nets) -> None:
    ours = nets.faces(photo("solvay"))
    shifted = Faces(ours.height, ours.width, ours.detections, np.roll(ours.embeddings, 1, axis=0))
    assert deviations(shifted, nets.expected("solvay")) == {"embedding"}


def test_the_same_person_ranks_above_all_others(nets: Nets) -> None:
    vectors = {name: nets.faces(photo(name)).embeddings[0] for name in face_standins.PORTRAITS}
    same: list[float] = []
    different: list[float] = []
    for one, other in itertools.combinations(vectors, 2):
        people = one.startswith("person") and one[: len("person_a")] == other[: len("person_a")]
        (same if people else different).append(cosine(vectors[one], vectors[other]))
    assert (len(same), len(different)) == (2, 13)
    assert min(same) > max(different) + 0.2


@pytest.mark.parametrize("recorded", sorted((DATA / "stock").glob("*.faces.json")), ids=lambda path: path.name)
def test_equals_what_stock_answered(face_models: Path, recorded: Path) -> None:
    expected = json.loads(recorded.read_text(encoding="utf-8"))
    folder = {"face_det": "face_det_standin_recorded", "face_rec": "face_rec_standin_recorded"}

    def open_session(name: str) -> Session:
        session: Session = cpu_session(face_models / folder[name] / "1/model.onnx")
        return session

    pipeline = FacesPipeline(open_session, open_session)
    image = (DATA / "images" / recorded.name.removesuffix(".faces.json")).read_bytes()
    ((_, answer),) = pipeline.run([Job(image, 0.7, "face_det", "face_rec")])
    assert isinstance(answer, Faces)
    assert (answer.height, answer.width) == (expected["imageHeight"], expected["imageWidth"])
    faces = expected["facial-recognition"]
    tensors = answer.tensors()
    assert len(tensors["BOXES"][0]) == len(faces)
    for box, score, embedding, face in zip(
        tensors["BOXES"][0], tensors["SCORES"][0], tensors["EMBEDDINGS"][0], faces, strict=True
    ):
        assert np.abs(box - list(face["boundingBox"].values())).max() <= 1
        assert score == pytest.approx(face["score"], abs=1e-3)
        assert cosine(embedding, np.array(json.loads(face["embedding"]), np.float32)) >= 0.999


def test_some_recorded_answer_has_a_face() -> None:
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in (DATA / "stock").glob("*.faces.json")]
    assert sum(len(answer["facial-recognition"]) for answer in answers) == 1


def test_the_bound_belongs_to_each_request(nets: Nets) -> None:
    image = photo("astronaut")
    (score,) = nets.faces(image).detections.scores
    jobs = [Job(image, bound, "detector", "recognizer") for bound in (score - 0.01, score + 0.01)]
    low, high = in_order(nets.pipeline.run(jobs))
    assert isinstance(low, Faces)
    assert isinstance(high, Faces)
    assert (len(low.detections), len(high.detections)) == (1, 0)


def test_detection_only_does_not_run_the_recogniser(nets: Nets) -> None:
    (answer,) = nets.run(photo("solvay"), recognition=False)
    assert isinstance(answer, Faces)
    assert len(answer.detections) == 29
    assert answer.tensors()["EMBEDDINGS"].shape == (1, 0, 512)
    assert nets.recognizer.batches == []


def test_more_than_two_hundred_faces(nets: Nets) -> None:
    head = cv2.resize(decode_rgb(photo("astronaut"))[60:620, 380:940], (128, 128), interpolation=cv2.INTER_AREA)
    crowd = np.tile(head, (15, 15, 1))
    answer = nets.faces(png(crowd), min_score=0.3)
    count = len(answer.detections)
    assert count >= 200
    assert answer.embeddings.shape == (count, 512)
    assert nets.recognizer.batches == [32] * (count // 32) + [count % 32] * (count % 32 > 0)
    # One and the same face: each embedding belongs to a box that holds it.
    assert min(cosine(answer.embeddings[0], other) for other in answer.embeddings) > 0.6


def test_a_threshold_of_zero_gives_the_best_faces_and_no_more(nets: Nets) -> None:
    image = photo("astronaut")
    answer = nets.faces(image, min_score=0.0)
    assert len(answer.detections) == len(answer.embeddings) == 300
    assert sum(nets.recognizer.batches) == 300
    assert answer.detections.scores[0] == nets.faces(image).detections.scores[0]
    assert (np.diff(answer.detections.scores) <= 0).all()


def test_how_many_faces_belongs_to_each_request(nets: Nets) -> None:
    image = photo("solvay")
    whole = nets.faces(image)
    jobs = [Job(image, 0.7, "detector", "recognizer", max_faces=most) for most in (1, 7, 29, 30)]
    for job, answer in zip(jobs, in_order(nets.pipeline.run(jobs)), strict=True):
        assert isinstance(answer, Faces)
        assert np.array_equal(answer.detections.boxes, whole.detections.boxes[: job.max_faces])


class OutputsAtHand:
    """What InsightFace takes for a session: it gives *outputs*, whatever it is asked."""

    def __init__(self, outputs: Sequence[npt.NDArray[np.float32]]) -> None:
        self._outputs = outputs

    def run(self, _names: Sequence[str] | None, _feed: dict[str, Any], /) -> list[Any]:
        return list(self._outputs)

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="pixels", shape=[1, 3, faces_detection.SIDE, faces_detection.SIDE])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name=name, shape=[1, *shape]) for name, shape in faces_detection.OUTPUTS.items()]


def scrfd(session: OutputsAtHand) -> Any:
    """InsightFace's detector behind *session*."""
    return SCRFD(session=session, static_shape_sessions=False)


@pytest.mark.parametrize("min_score", [0.0, 0.3, 0.97, 1.0, 1.1])
@pytest.mark.parametrize("shape", [(900, 747, 3), (640, 640, 3), (1080, 1920, 3)], ids=str)
def test_candidates_become_faces_as_in_insightface(shape: tuple[int, int, int], min_score: float) -> None:
    """To the last bit: InsightFace decodes every candidate and then chooses, we the other way round."""
    noise = np.random.default_rng(7)
    scales = {4: 6.0, 10: 4.0}
    sizes = list(faces_detection.OUTPUTS.values())
    outputs = [(noise.random((1, *size)) * scales.get(size[1], 0)).astype(np.float32) for size in sizes]
    # No two scores are equal: of those InsightFace takes now one, now the other first.
    ends = np.cumsum([count for count, _ in sizes[:3]])
    scores = noise.permutation(ends[-1]).astype(np.float32) / ends[-1]
    outputs[:3] = [part.reshape(1, -1, 1).astype(np.float32) for part in np.split(scores, ends[:-1])]
    image = np.zeros(shape, np.uint8)
    boxes, landmarks = scrfd(OutputsAtHand(outputs)).detect(image, input_size=(640, 640), det_thresh=min_score)
    found = decode(outputs, faces_detection.letterbox(image)[1], Bounds(min_score, max_faces=100_000))
    assert np.array_equal(found.boxes, boxes[:, :4])
    assert np.array_equal(found.scores, boxes[:, 4])
    assert np.array_equal(found.landmarks, landmarks)
    assert bool(len(found)) == (min_score < 1)


@pytest.mark.parametrize("count", [0, 1, 2, 300, 3000])
def test_overlapping_faces_go_as_in_insightface(count: int) -> None:
    noise = np.random.default_rng(count)
    corners = noise.uniform(0, 2000, (count, 2))
    scores = np.sort(noise.random((count, 1)), axis=0)[::-1]
    faces = np.hstack((corners, corners + noise.uniform(1, 400, (count, 2)), scores)).astype(np.float32)
    expected = scrfd(OutputsAtHand([])).nms(faces)
    assert _suppress(faces, count) == expected
    assert _suppress(faces, 5) == expected[:5]


def test_scores_fall_and_boxes_are_whole_pixels(nets: Nets) -> None:
    tensors = nets.faces(photo("solvay")).tensors()
    assert (np.diff(tensors["SCORES"][0]) <= 0).all()
    assert (tensors["BOXES"] == tensors["BOXES"].round()).all()
    assert {name: value.dtype for name, value in tensors.items()} == {
        "BOXES": np.float32,
        "SCORES": np.float32,
        "LANDMARKS": np.float32,
        "EMBEDDINGS": np.float32,
        "IMAGE_SIZE": np.int32,
    }


def test_boxes_reach_beyond_the_border(nets: Nets) -> None:
    image = decode_rgb(photo("astronaut"))
    cut = np.ascontiguousarray(image[260:, 560:])
    answer = nets.faces(png(cut), min_score=0.3)
    expected = nets.originals.analyse(cut, 0.3)
    assert deviations(answer, expected) == set()
    assert answer.tensors()["BOXES"].min() < 0


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (1, 1), (3, 700)])
def test_thin_and_tiny_images_have_no_faces(nets: Nets, shape: tuple[int, int]) -> None:
    answer = nets.faces(png(np.full((*shape, 3), 127, np.uint8)))
    assert len(answer.detections) == 0
    assert (answer.height, answer.width) == shape


@pytest.mark.parametrize("value", [0.0, 50.0, np.nan, np.inf, 1e9], ids=str)
def test_landmarks_that_coincide_cannot_be_aligned(value: float) -> None:
    image = np.full((200, 200, 3), 99, np.uint8)
    assert faces_recognition.align(image, np.full((5, 2), value, np.float32)) is None


def test_a_face_that_cannot_be_aligned_is_left_out(nets: Nets) -> None:
    class OneWithoutLandmarks:
        """The real detector, but the landmarks of the best face coincide."""

        def run(self, output_names: Sequence[str] | None, feed: dict[str, Any], /) -> list[Any]:
            outputs = dict(zip(faces_detection.OUTPUTS, nets.detector.run(output_names, feed), strict=True))
            best = max(faces_detection.STRIDES, key=lambda stride: float(outputs[f"score_{stride}"].max()))
            anchor = int(outputs[f"score_{best}"][0, :, 0].argmax())
            outputs[f"kps_{best}"][0, anchor] = 0
            return list(outputs.values())

    pipeline = FacesPipeline(lambda _name: OneWithoutLandmarks(), lambda _name: nets.recognizer)
    ((_, answer),) = pipeline.run([Job(photo("solvay"), 0.7, "detector", "recognizer")])
    assert isinstance(answer, Faces)
    whole = nets.faces(photo("solvay"))
    assert np.array_equal(answer.detections.scores, whole.detections.scores[1:])
    assert len(answer.embeddings) == 28


def test_a_bad_image_fails_alone(nets: Nets) -> None:
    good, bad, empty, cut = nets.run(photo("astronaut"), b"no image", b"", photo("astronaut")[:5000])
    assert isinstance(good, Faces)
    assert len(good.detections) == 1
    assert [type(answer) for answer in (bad, empty, cut)] == [BadInput] * 3


def test_a_failing_model_fails_only_the_jobs_that_need_it(nets: Nets) -> None:
    class Missing:
        def run(self, _names: Sequence[str] | None, _feed: dict[str, Any], /) -> list[Any]:
            raise RuntimeError("no such model")

    sessions: dict[str, Session] = {"detector": nets.detector, "other": Missing(), "recognizer": nets.recognizer}
    pipeline = FacesPipeline(sessions.__getitem__, sessions.__getitem__)
    image = photo("astronaut")
    jobs = [("detector", "recognizer"), ("other", "recognizer"), ("detector", "unknown")]
    fine, broken, unknown = in_order(pipeline.run([Job(image, 0.7, *models) for models in jobs]))
    assert isinstance(fine, Faces)
    assert isinstance(broken, RuntimeError)
    assert isinstance(unknown, KeyError)


def test_an_image_that_breaks_a_model_does_not_take_its_neighbours_along(nets: Nets) -> None:
    class Fragile:
        """The real recogniser; every face of the group photo makes the whole run give no numbers."""

        def run(self, names: Sequence[str] | None, feed: dict[str, Any], /) -> list[Any]:
            (embeddings,) = nets.recognizer.run(names, feed)
            return [embeddings * np.nan if len(embeddings) > 2 else embeddings]

    pipeline = FacesPipeline(lambda _name: nets.detector, lambda _name: Fragile())
    images = [photo("astronaut"), photo("solvay"), photo("person_a_1.jpg")]
    first, second, third = in_order(pipeline.run([Job(image, 0.7, "detector", "recognizer") for image in images]))
    assert isinstance(first, Faces)
    assert isinstance(second, ArithmeticError)
    assert isinstance(third, Faces)
