// Whether the documentation is true, as far as this computer can tell: what it names is there, and its commands do what it says.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { parse } from "yaml";
import { schemaAt } from "../../config/keys";
import { configKeys, configNamespace, secretKeys } from "../../config/load";
import { configSchema } from "../../config/schema";
import { repository } from "../../scripts/lib/paths";
import { chooseSteps } from "../../scripts/test-runner/steps";
import { commandsIn, helpOf, optionsIn } from "./helps";
import { quotedFigures, resembles, sectionOf } from "./markdown";
import { files, type Known, knownCommands, pages } from "./pages";
import { Sandbox, STACK } from "./sandbox";

const commands = pages.flatMap(knownCommands);

/** Every place in the pages of which something is not true. */
function wrong(problems: readonly (string | undefined)[]): void {
  const found = problems.filter((problem) => problem !== undefined);
  assert.equal(found.length, 0, `\n${found.join("\n")}`);
}

describe("the documentation", () => {
  it("has no command that nobody knows how to run", () => {
    wrong(
      commands.map(({ page, command, way }) =>
        way === undefined
          ? `${page}:${command.line}: "${command.text}": say how it is run in test/docs/ways.ts, or <!-- needs: ... --> before the block why it cannot be`
          : undefined,
      ),
    );
  });

  it("says why what is not run is not run", () => {
    wrong(
      commands.map(({ page, command, way }) =>
        way?.in === "nowhere" && way.needs.split(" ").length < 2
          ? `${page}:${command.line}: "${way.needs}" is no reason`
          : undefined,
      ),
    );
  });

  it("leaves to other tests what they run", () => {
    wrong(
      commands.map(({ page, command, way }) => {
        if (way?.in !== "test") return undefined;
        const text = existsSync(join(repository, way.file))
          ? readFileSync(join(repository, way.file), "utf8")
          : "";
        const missing = way.words.filter((word) => !text.includes(word));
        return missing.length === 0
          ? undefined
          : `${page}:${command.line}: "${command.text}": ${way.file} has no ${missing.join(", ")}`;
      }),
    );
  });

  it("links to what is there", () => {
    const anchorsOf = new Map(pages.map(({ path, anchors }) => [path, anchors]));
    wrong(
      pages.flatMap(({ path, links }) =>
        links.map(({ target, line }) => {
          if (/^(https?|mailto):/.test(target)) return undefined;
          const [file = "", anchor] = target.split("#");
          const to = file === "" ? path : normalize(join(dirname(path), file));
          if (!existsSync(join(repository, to))) return `${path}:${line}: there is no ${to}`;
          if (anchor === undefined || anchorsOf.get(to)?.has(decodeURIComponent(anchor))) return undefined;
          return `${path}:${line}: ${to} has no heading #${anchor}`;
        }),
      ),
    );
  });

  it("leads to every page from its index", () => {
    const targets = (path: string) =>
      (pages.find((page) => page.path === path)?.links ?? []).map(({ target }) =>
        normalize(join(dirname(path), target.split("#")[0] ?? "")),
      );
    const indexes = pages.map(({ path }) => path).filter((path) => /^docs\/.*README\.md$/.test(path));
    const led = new Set(["docs/README.md", ...indexes.flatMap(targets)]);
    wrong(
      pages.map(({ path }) =>
        path.startsWith("docs/") && !led.has(path) ? `${path} is in no index` : undefined,
      ),
    );
  });

  it("names paths of the repository that are there", () => {
    const directories = new Set(files.flatMap((file) => (file.includes("/") ? [file.split("/")[0]] : [])));
    const exists = (path: string) => existsSync(join(repository, path));
    wrong(
      pages.flatMap(({ path, codes }) =>
        codes.map(({ text, line }) => {
          const [word = ""] = text.split(" ");
          if (!/^[\w./-]+$/.test(word) || !directories.has(word.split("/")[0]) || !word.includes("/"))
            return undefined;
          return exists(word) ? undefined : `${path}:${line}: there is no ${word}`;
        }),
      ),
    );
  });

  it("names commands and options that the programs have", async () => {
    const said = [
      ...commands.map(({ page, command }) => ({ page, line: command.line, text: command.text })),
      ...pages.flatMap(({ path, codes }) => codes.map(({ text, line }) => ({ page: path, line, text }))),
    ];
    const problems: (string | undefined)[] = [];
    for (const { page, line, text } of said) {
      const [program = "", ...args] = text.split(" ");
      if (!/^scripts\/(cluster|lab|bench|dev|test)$/.test(program)) continue;
      problems.push(...(await mistakes(program, args)).map((what) => `${page}:${line}: "${text}": ${what}`));
    }
    wrong(problems);
  });

  it("has the same commands and leads to the same pages in Chinese", () => {
    const front = ["README.md", "README.zh-CN.md"].map((name) => {
      const page = pages.find(({ path }) => path === name);
      assert.ok(page, name);
      return {
        // What is said in them, and why, is said in the page's language.
        commands: knownCommands(page).map(({ command }) => command.text.replace(/"[^"]*"/g, '""')),
        links: [
          ...new Set(page.links.map(({ target }) => target.replace(/^README.*|^#.*|page-\w\w/, ""))),
        ].sort(),
      };
    });
    assert.deepEqual(front[1], front[0]);
  });

  it("quotes figures as they were measured", () => {
    const read = (path: string) => readFileSync(join(repository, path), "utf8");
    wrong(
      pages.flatMap(({ path }) =>
        quotedFigures(read(path), /(benchmark|faults)\.md#/).map(({ target, figure, line }) => {
          const [file = "", anchor = ""] = target.split("#");
          const section = sectionOf(read(normalize(join(dirname(path), file))), anchor) ?? "";
          const there = new RegExp(`(?<![\\d.])${figure.replace(".", "\\.")}(?![\\d]|\\.\\d)`).test(section);
          return there ? undefined : `${path}:${line}: ${figure} is not in ${target}`;
        }),
      ),
    );
  });

  it("names keys of the configuration that there are", () => {
    wrong(
      pages.flatMap(({ path, codes }) =>
        codes.map(({ text, line }) => {
          const keys = /^[a-z]\w*(?:\[\])?(?:\.\w+(?:\[\])?)+(?=$|[:=] )/
            .exec(text)?.[0]
            .replaceAll("[]", ".0")
            .split(".");
          if (keys === undefined || !configKeys.includes(keys[0] ?? "")) return undefined;
          return isKey(keys) ? undefined : `${path}:${line}: the configuration has no ${keys.join(".")}`;
        }),
      ),
    );
  });

  it("shows parts of stack files with keys that there are", () => {
    wrong(
      pages.flatMap(({ path, blocks }) =>
        blocks
          .filter(
            ({ language, lines }) => language === "yaml" && lines.join("\n").includes(`${configNamespace}:`),
          )
          .flatMap(({ lines, line }) =>
            keysOf(parse(lines.join("\n"))).map((keys) =>
              isKey(keys) ? undefined : `${path}:${line}: the configuration has no ${keys.join(".")}`,
            ),
          ),
      ),
    );
  });
});

describe("commands of the documentation", () => {
  // What several pages have in common is typed once.
  const groups = new Map<string, Known[][]>();
  for (const page of pages) {
    const here = knownCommands(page).filter(({ way }) => way?.in === "copy");
    const key = here.map(({ command }) => command.text).join("\n");
    if (here.length > 0) groups.set(key, [...(groups.get(key) ?? []), here]);
  }
  for (const group of groups.values()) {
    const [typed = []] = group;
    const names = group.map(([first]) => first?.page).join(", ");
    it(`${names}: ${typed.length} do here what it says`, async () => {
      await using sandbox = await Sandbox.open();
      const needsStack = typed.some(({ command }) => /pulumi (config|preview|up)/.test(command.text));
      if (needsStack && !typed.some(({ command }) => command.text.includes("stack init"))) {
        const begun = await sandbox.run(
          `cp Pulumi.onprem.yaml Pulumi.${STACK}.yaml && pulumi login --local && pulumi stack init ${STACK}`,
        );
        assert.equal(begun.exitCode, 0, begun.output);
      }
      for (const [index, { command, way }] of typed.entries()) {
        const { exitCode, output } = await sandbox.run(command.text);
        const exits = (way?.in === "copy" && way.exits) || [0];
        assert.ok(exits.includes(exitCode), `$ ${command.text}\n${output}\nexit status ${exitCode}`);
        for (const shown of group.map((commands) => commands[index])) {
          const missing = resembles(output, shown?.command.output ?? []);
          const where = `${shown?.page}:${shown?.command.line}: $ ${command.text}\n${output}`;
          assert.equal(missing, undefined, `${where}\nhas no line like the page's: ${missing}`);
        }
      }
    });
  }
});

/** What a program does not know of what it is told. */
async function mistakes(program: string, args: readonly string[]): Promise<string[]> {
  if (program === "scripts/test") {
    const chosen = chooseSteps(args.filter((arg) => !/^[[<]/.test(arg) && arg !== "NAME"));
    return typeof chosen === "string" ? [chosen] : [];
  }
  const [command = "--help"] = args;
  if (command.startsWith("-")) return [];
  if (!commandsIn(await helpOf(program)).includes(command)) return [`${program} has no "${command}"`];
  const rest = args.slice(1);
  const own = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
  // What is run on a machine, or by Pulumi, has options of its own.
  if (program === "scripts/lab" && /^(exec|ssh|pulumi)$/.test(command)) return [];
  const options = own.map((arg) => /^\[?(--?[a-z][\w-]*)/.exec(arg)?.[1]).filter((arg) => arg !== undefined);
  if (options.length === 0) return [];
  const has = [...optionsIn(await helpOf(program)), ...optionsIn(await helpOf(program, command))];
  return options.filter((option) => !has.includes(option)).map((option) => `it has no option ${option}`);
}

/** Paths of all keys of a part of a stack file. */
function keysOf(value: unknown, at: readonly string[] = []): string[][] {
  if (Array.isArray(value)) return value.flatMap((item, index) => keysOf(item, [...at, String(index)]));
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const name = at.length === 0 ? key.replace(`${configNamespace}:`, "") : key;
    const path = at.length === 0 && key === "config" ? [] : [...at, name];
    return [...(path.length === 0 ? [] : [path]), ...keysOf(inner, path)];
  });
}

/** Whether the schema has a value there, whatever kind of section a value's `kind` would choose. */
function isKey(keys: readonly string[]): boolean {
  const [first = ""] = keys;
  if (secretKeys.some((key) => key === first)) return true;
  const path = keys.map((key) => (/^\d+$/.test(key) ? Number(key) : key));
  if (!(first in configSchema.shape)) return false;
  return (
    path.length === 1 ||
    kinds.some((kind) => schemaAt(path, { loadBalancer: { check: { kind } } }) !== undefined)
  );
}

const kinds = ["poller", "tcp", "http", "misc"] as const;
