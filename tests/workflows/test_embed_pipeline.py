"""`embed` is a streaming pipeline: as one batch step it gives equal rows."""

import pytest

from penstock.flow import Pipeline, PipelineEngine, StreamingPipeline
from penstock.sources.selection import selection
from penstock.sources.walking import roots, walk
from penstock.workflows import EmbedJob

pytestmark = pytest.mark.real_time


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.md").write_text(f"# Title {number}\n\ntext {number}\n\n## More\n\nother {number}\n")
    return root


def plain(rows):
    return sorted((row["title"], row["position"], row["text"], row["vector"].tolist()) for row in rows)


async def test_a_batch_step_gives_the_rows_of_the_index(docs, tmp_path, rows):
    job = EmbedJob(docs, tmp_path / "i.db")
    assert isinstance(job.pipeline, StreamingPipeline)
    places = roots([str(docs)])
    found = [
        file
        for listing in walk(places, selection(["*.md"], [], follows=False), lambda *_: None)
        for file in listing.files
    ]
    streamed = await job.pipeline.to_list(found)
    pipeline = Pipeline("batch", takes=list).add(job.pipeline.as_step())
    result = await PipelineEngine(tmp_path / "work").run(pipeline, found)
    assert result.status == "completed", result.error
    assert plain(result.output) == plain(streamed)
    await EmbedJob(docs, tmp_path / "i.db", glob=["*.md"]).run()
    assert sorted(row.text for row in rows(tmp_path / "i.db")) == sorted(row["text"] for row in streamed)
