"""Runs in a worker's `manage.py shell`: promotes a copy of the champion whose golden outputs are not its own.

Every digest is right, so that only loading and asking it can show that something is amiss. Prints its digest.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from blog_site.training.federation import artifact_store
from blog_site.training.models import ModelVersion
from blog_site.training.rollout import promote_model


def canonical(document):
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"


champion = ModelVersion.objects.champion()
with tempfile.TemporaryDirectory() as scratch:
    folder = artifact_store().fetch_artifact(champion.digest, Path(scratch))
    golden = json.loads((folder / "golden.json").read_text())
    for case in golden:
        case["probabilities"].reverse()
        if case["int8"] is not None:
            case["int8"].reverse()
    content = canonical(golden)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    broken = Path(scratch) / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "golden.json").write_bytes(content)
    (broken / "manifest.json").write_bytes(canonical(manifest))
    digest = hashlib.sha256(canonical(manifest)).hexdigest()
    artifact_store().put_artifact(digest, broken)
version = ModelVersion.objects.create(
    digest=digest, parent=champion, metrics=champion.metrics, size_bytes=champion.size_bytes
)
promote_model(model_version=version, actor="e2e")
print(digest)
