// Writes the comment of a stack's preview on a pull request, or brings the one that is there up to date, so that there is always one.
// Plain JavaScript without packages: it runs with the right to write, and nothing else is to run with it.
//
//     COMMENT=... PULL_REQUEST=7 GITHUB_TOKEN=... GITHUB_REPOSITORY=owner/name node scripts/ci/comment.mjs
const {
  COMMENT: body = "",
  PULL_REQUEST: number = "",
  GITHUB_TOKEN: token = "",
  GITHUB_REPOSITORY: repository = "",
  GITHUB_API_URL: api = "https://api.github.com",
} = process.env;

/** The first line, which says whose comment it is. */
const marker = body.split("\n")[0];
const AUTHOR = "github-actions[bot]";
const PAGE = 100;

async function ask(method, path, content) {
  const answer = await fetch(`${api}/repos/${repository}${path}`, {
    method,
    headers: {
      accept: "application/vnd.github+json",
      authorization: `Bearer ${token}`,
      "x-github-api-version": "2022-11-28",
    },
    ...(content === undefined ? {} : { body: JSON.stringify(content) }),
    signal: AbortSignal.timeout(30_000),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${(await answer.text()).slice(0, 500)}`);
  return answer.json();
}

async function existing() {
  for (let page = 1; ; page += 1) {
    const comments = await ask("GET", `/issues/${number}/comments?per_page=${PAGE}&page=${page}`);
    // Anybody can write the marker; only this program's own comment is changed.
    const found = comments.find((comment) => comment.user?.login === AUTHOR && comment.body?.startsWith(marker));
    if (found !== undefined || comments.length < PAGE) return found;
  }
}

if (!/^<!-- .+ -->$/.test(marker) || !/^\d+$/.test(number) || token === "" || repository === "") {
  console.error("comment: COMMENT must begin with a line <!-- ... -->, and PULL_REQUEST, GITHUB_TOKEN, GITHUB_REPOSITORY be set");
  process.exit(2);
}
const comment = await existing();
if (comment === undefined) {
  await ask("POST", `/issues/${number}/comments`, { body });
  console.log("comment: written");
} else if (comment.body === body) {
  console.log("comment: says so already");
} else {
  await ask("PATCH", `/issues/comments/${comment.id}`, { body });
  console.log("comment: brought up to date");
}
