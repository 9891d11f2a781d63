import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { repository } from "../../scripts/lib/paths";

interface Comment {
  readonly id: number;
  readonly body: string;
  readonly user: { readonly login: string };
}

const BODY = "<!-- cosyvoice-lvs preview of prod -->\n### new\n";
const bot = { login: "github-actions[bot]" };
const mine = (id: number, text: string): Comment => ({ id, body: BODY.replace("new", text), user: bot });
const chatter = (id: number): Comment => ({ id, body: "looks good", user: { login: "somebody" } });

/** GitHub's comments, as far as the program asks for them. */
class PretendGitHub {
  readonly written: string[] = [];
  status = 200;
  private server: Server | undefined;

  constructor(private readonly comments: readonly Comment[]) {}

  async run(body = BODY): Promise<{ code: number; said: string }> {
    this.server = createServer(async (request, response) => {
      let content = "";
      for await (const chunk of request) content += chunk;
      const url = new URL(request.url ?? "", "http://localhost");
      assert.equal(request.headers.authorization, "Bearer made-up");
      const page = Number(url.searchParams.get("page"));
      if (request.method !== "GET")
        this.written.push(`${request.method} ${url.pathname} ${JSON.parse(content).body}`);
      response.writeHead(this.status, { "content-type": "application/json" });
      response.end(JSON.stringify(this.comments.slice((page - 1) * 100, page * 100)));
    }).listen(0, "127.0.0.1");
    await new Promise((listening) => this.server?.once("listening", listening));
    const { port } = this.server.address() as { port: number };
    const env = {
      GITHUB_API_URL: `http://127.0.0.1:${port}`,
      GITHUB_REPOSITORY: "owner/name",
      GITHUB_TOKEN: "made-up",
      PULL_REQUEST: "7",
      COMMENT: body,
    };
    try {
      return await new Promise((resolve) =>
        execFile(
          process.execPath,
          [join(repository, "scripts/ci/comment.mjs")],
          { env },
          (error, stdout, stderr) => resolve({ code: error ? Number(error.code) : 0, said: stdout + stderr }),
        ),
      );
    } finally {
      this.server.close();
    }
  }
}

describe("the comment of a preview", () => {
  it("is written when there is none", async () => {
    const github = new PretendGitHub([chatter(1)]);
    assert.equal((await github.run()).code, 0);
    assert.deepEqual(github.written, [`POST /repos/owner/name/issues/7/comments ${BODY}`]);
  });

  it("is brought up to date when there is one, however far back", async () => {
    const github = new PretendGitHub([
      ...Array.from({ length: 120 }, (_, id) => chatter(id)),
      mine(500, "old"),
    ]);
    await github.run();
    assert.deepEqual(github.written, [`PATCH /repos/owner/name/issues/comments/500 ${BODY}`]);
  });

  it("is left alone when it says so already", async () => {
    const github = new PretendGitHub([mine(5, "new")]);
    await github.run();
    assert.deepEqual(github.written, []);
  });

  it("is neither another stack's nor somebody else's", async () => {
    const other = { ...mine(5, "old"), body: BODY.replace("prod", "onprem") };
    const forged = { ...mine(6, "old"), user: { login: "somebody" } };
    const github = new PretendGitHub([other, forged]);
    await github.run();
    assert.match(github.written.join(), /^POST /);
  });

  it("fails with GitHub's words, and for a text without a mark", async () => {
    const github = new PretendGitHub([]);
    github.status = 403;
    const { code, said } = await github.run();
    assert.equal(code, 1);
    assert.match(said, /GET \/issues\/7\/comments.*: 403/);
    assert.equal((await github.run("no mark")).code, 2);
  });
});
