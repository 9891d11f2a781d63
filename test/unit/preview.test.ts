import assert from "node:assert/strict";
import { stripVTControlCharacters } from "node:util";
import { readPreview } from "../../scripts/lib/previewEvents";
import { condense } from "../../scripts/preview-cli/condense";
import { marker, renderMarkdown, renderText } from "../../scripts/preview-cli/render";
import type { Previewed } from "../../scripts/preview-cli/run";

/** Two resources as `pulumi preview --diff` shows them, in the order in which they came. */
const diff = `Previewing update (example):
  pulumi:pulumi:Stack: (same)
    [urn=urn:pulumi:example::cosyvoice-lvs::pulumi:pulumi:Stack::cosyvoice-lvs-example]
            ~ command:remote:Command: (update)
                [id=rs-10-id]
                [urn=urn:pulumi:example::cosyvoice-lvs::command:remote:Command::rs-10]
                [provider=urn:pulumi:example::cosyvoice-lvs::pulumi:providers:command::default::1]
              ~ stdin: (json) {
                    checks  : [
                        [0]: {
                            name: "kept as it is"
                        }
                    ]
                  ~ files   : {
                      ~ /etc/a : {
                          ~ content: 
                                ...
                                before
                              - pace 1
                              + pace 2
                                after
                                ...
                            mode   : "0644"
                        }
                        /etc/b : {
                            mode   : "0600"
                        }
                    }
                }
            + command:remote:Command: (create)
                [urn=urn:pulumi:example::cosyvoice-lvs::command:remote:Command::rs-2]
              + create: "/apply"
Resources:
    + 1 to create
    ~ 1 to update
    3 unchanged

Policy Packs run:
    Name                              Version
    cosyvoice-lvs|local|/home/policy  0.1.0
`;

const condensed = `            + command:remote:Command: (create) rs-2
              + create: "/apply"
            ~ command:remote:Command: (update) rs-10
              ~ stdin: (json) {
                  ~ files   : {
                      ~ /etc/a : {
                          ~ content:
                                ...
                                before
                              - pace 1
                              + pace 2
                                after
                                ...
                        }
                    }
                }
Resources:
    + 1 to create
    ~ 1 to update
    3 unchanged`;

const URN = "urn:pulumi:example::cosyvoice-lvs::command:remote:Command::cosyvoice-rs-1";
const log = [
  { policyLoadEvent: {} },
  {
    resourcePreEvent: {
      metadata: {
        op: "update",
        urn: URN,
        type: "a:b:C",
        old: { type: "a", inputs: { x: 1 } },
        new: { type: "a", inputs: { x: 2 } },
      },
    },
  },
  {
    policyEvent: {
      resourceUrn: URN,
      message: "<{%reset%}>Say it.\nNow.<{%reset%}>\n",
      policyName: "made-up",
      enforcementLevel: "mandatory",
    },
  },
  { diagnosticEvent: { message: "<{%fg 3%}>careful<{%reset%}>", severity: "warning" } },
  {
    summaryEvent: {
      resourceChanges: { update: 1 },
      PolicyPacks: { "cosyvoice-lvs|local|/home/policy": "0.1.0" },
    },
  },
]
  .map((event) => JSON.stringify({ sequence: 1, ...event }))
  .join("\n");

const previewed = (changes: Partial<Previewed> = {}): Previewed => ({
  ...readPreview(""),
  diff,
  passed: true,
  ...changes,
});

describe("a preview", () => {
  it("is read from what pulumi says to programs", () => {
    assert.deepEqual(readPreview(log), {
      steps: [{ op: "update", urn: URN, type: "a:b:C", before: { x: 1 }, after: { x: 2 } }],
      violations: [
        { policy: "made-up", resource: "cosyvoice-rs-1", message: "Say it.\nNow.", mandatory: true },
      ],
      errors: [],
      warnings: ["careful"],
      policyPacks: ["cosyvoice-lvs"],
    });
    assert.throws(() => readPreview("no log"));
  });

  it("shows what changes with what it is part of, in the order of names", () =>
    assert.equal(condense(diff), condensed));

  it("comes whole where it is not understood", () => {
    const words = "error: no stack named 'example' found";
    assert.equal(condense(words), words);
  });

  it("says on a pull request whose it is, with marks where GitHub looks for them", () => {
    const text = renderMarkdown("example", previewed());
    assert.equal(text.split("\n")[0], marker("example"));
    assert.match(text, /^- {31}pace 1\n\+ {31}pace 2$/m);
    assert.match(text, /^! {15}stdin: \(json\) \{$/m);
  });

  it("fits into a comment", () => {
    const long = renderMarkdown("example", previewed({ diff: `${"+ a line of a new file\n".repeat(5000)}` }));
    assert.ok(long.length < 65_536, `${long.length}`);
    assert.match(long, /The rest is left out here: the log/);
  });

  it("is not taken for the end of its own fence", () => {
    const fenced = renderMarkdown("example", previewed({ diff: "```\ninside\n```" }));
    assert.match(fenced, /^````diff\n```\ninside\n```\n````$/m);
  });

  it("says what stands in the way", () => {
    const violations = [{ policy: "made-up", resource: "rs-1", message: "Say it.\nNow.", mandatory: true }];
    const text = stripVTControlCharacters(
      renderText(
        "example",
        previewed({ passed: false, violations, errors: ["no\nway"], warnings: ["nobody\nis told"] }),
      ),
    );
    assert.match(text, /^- Warning: nobody is told$/m);
    assert.match(text, /^example: this cannot be deployed$/m);
    assert.match(text, /^- \*\*Not allowed\*\* \(made-up\): Say it\. Now\.$/m);
    assert.match(text, /^- Failed: no\n {2}way$/m);
  });

  it("has the policy pack's word only of a program that came to its end", () => {
    const text = (passed: boolean) => renderText("example", previewed({ passed, policyPacks: ["made-up"] }));
    assert.match(text(true), /^- The policy pack has no objection\.$/m);
    assert.doesNotMatch(text(false), /no objection/);
  });
});
