import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { digest } from "../../components/digest";
import { packRelease } from "../../components/release";

describe("a release", () => {
  let folder = "";
  let app = "";

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "release-"));
    app = join(folder, "app");
    mkdirSync(join(app, "cosyvoice_app/engines/__pycache__"), { recursive: true });
    for (const [path, text] of Object.entries({
      "app.py": "main\n",
      "requirements.txt": "gradio==0\n",
      "test.sh": "not part of it\n",
      "cosyvoice_app/a.py": "a\n",
      "cosyvoice_app/engines/b.py": "b\n",
      "cosyvoice_app/engines/__pycache__/b.pyc": "junk",
    })) {
      writeFileSync(join(app, path), text);
    }
  });

  afterEach(() => rmSync(folder, { recursive: true }));

  it("holds the app's files and nothing else, and is named by what it holds", () => {
    const release = packRelease(app, join(folder, "cache"));
    const content = gunzipSync(readFileSync(release.archive)).toString();
    assert.deepEqual(JSON.parse(content), {
      "app.py": "main\n",
      "cosyvoice_app/a.py": "a\n",
      "cosyvoice_app/engines/b.py": "b\n",
      "requirements.txt": "gradio==0\n",
    });
    assert.equal(release.digest, digest(content));
    assert.deepEqual(readdirSync(join(folder, "cache")), [`${release.digest}.json.gz`]);
  });

  it("is the same file, byte by byte, when it is packed again: a deployment then copies nothing", () => {
    const first = readFileSync(packRelease(app, join(folder, "one")).archive);
    assert.deepEqual(readFileSync(packRelease(app, join(folder, "two")).archive), first);
  });

  it("has another name when a line changes", () => {
    const before = packRelease(app, folder).digest;
    writeFileSync(join(app, "cosyvoice_app/a.py"), "A\n");
    assert.notEqual(packRelease(app, folder).digest, before);
  });

  it("is refused when a part is missing", () => {
    rmSync(join(app, "requirements.txt"));
    assert.throws(() => packRelease(app, folder), /requirements\.txt/);
  });
});
