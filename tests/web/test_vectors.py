"""Which smart-search jobs made a vector, by the order of events in two queues."""

from __future__ import annotations

from immich_triton.web.vectors import Vectors


def test_a_search_for_duplicates_of_its_photo_shows_that_the_job_made_a_vector() -> None:
    vectors = Vectors()
    vectors.began("a")
    vectors.duplicates_sought("a")
    assert vectors.ended("a") == "made"


def test_without_one_it_made_none() -> None:
    vectors = Vectors()
    vectors.began("a")
    assert vectors.ended("a") == "failed"


def test_two_at_the_same_time_are_told_apart_by_the_photo() -> None:
    vectors = Vectors()
    vectors.began("a")
    vectors.began("b")
    vectors.duplicates_sought("b")
    assert vectors.ended("a") == "failed"
    assert vectors.ended("b") == "made"


def test_a_search_whose_photo_is_not_known_belongs_to_the_only_job() -> None:
    vectors = Vectors()
    vectors.began("a")
    vectors.duplicates_sought(None)
    assert vectors.ended("a") == "made"


def test_among_several_jobs_it_says_nothing() -> None:
    vectors = Vectors()
    vectors.began("a")
    vectors.began("b")
    vectors.duplicates_sought(None)
    assert (vectors.ended("a"), vectors.ended("b")) == ("unknown", "unknown")


def test_a_job_that_ran_before_it_was_watched_counts_as_another() -> None:
    vectors = Vectors(running=["old"])
    vectors.began("a")
    vectors.duplicates_sought(None)
    assert vectors.ended("a") == "unknown"


def test_a_job_that_was_never_seen_to_begin_is_not_known() -> None:
    assert Vectors().ended("a") == "unknown"


def test_a_search_of_before_it_began_again_does_not_count() -> None:
    """A job that stalled is begun a second time."""
    vectors = Vectors()
    vectors.began("a")
    vectors.duplicates_sought("a")
    vectors.began("a")
    assert vectors.ended("a") == "failed"


def test_a_duplicate_search_for_another_photo_is_nobodys_proof() -> None:
    vectors = Vectors()
    vectors.began("a")
    vectors.duplicates_sought("of-an-upload")
    assert vectors.ended("a") == "failed"
