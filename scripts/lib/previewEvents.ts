import * as z from "zod";
import { nameOf } from "./urn";

const properties = z.record(z.string(), z.unknown());

const side = z
  .object({ type: z.string(), inputs: properties.optional(), id: z.string().optional() })
  .nullish()
  .transform((value) => value ?? undefined);

/** One line of the log of events that `pulumi preview --event-log FILE` writes: what its library for programs reads. */
const event = z.object({
  resourcePreEvent: z
    .object({
      metadata: z.object({ op: z.string(), urn: z.string(), type: z.string(), old: side, new: side }),
    })
    .optional(),
  policyEvent: z
    .object({
      resourceUrn: z.string().optional(),
      message: z.string(),
      policyName: z.string(),
      enforcementLevel: z.string(),
    })
    .optional(),
  diagnosticEvent: z.object({ message: z.string(), severity: z.string() }).optional(),
  summaryEvent: z
    .object({
      resourceChanges: z.record(z.string(), z.number()),
      PolicyPacks: z.record(z.string(), z.string()).nullish(),
    })
    .optional(),
});

/** What a preview says of one resource. Secrets among the inputs are the text "[secret]". */
export interface PreviewStep {
  /** same, create, update, delete, replace, create-replacement, delete-replaced, ... */
  readonly op: string;
  readonly urn: string;
  readonly type: string;
  /** As it was deployed. */
  readonly before: Readonly<Record<string, unknown>> | undefined;
  /** As it would be. */
  readonly after: Readonly<Record<string, unknown>> | undefined;
}

/** A rule of a policy pack that is broken. */
export interface Violation {
  readonly policy: string;
  /** The resource's own name. */
  readonly resource: string;
  readonly message: string;
  readonly mandatory: boolean;
}

export interface Preview {
  readonly steps: readonly PreviewStep[];
  readonly violations: readonly Violation[];
  readonly errors: readonly string[];
  readonly warnings: readonly string[];
  /** Policy packs that were asked. */
  readonly policyPacks: readonly string[];
}

/** Reads what a preview said to programs. @throws an Error for what is no such log. */
export function readPreview(log: string): Preview {
  const events = log
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => event.parse(JSON.parse(line)));
  const said = (severity: string) =>
    events.flatMap(({ diagnosticEvent }) =>
      diagnosticEvent?.severity === severity ? [plain(diagnosticEvent.message)] : [],
    );
  return {
    steps: events.flatMap(({ resourcePreEvent }) => {
      if (resourcePreEvent === undefined) return [];
      const { op, urn, type, old, new: after } = resourcePreEvent.metadata;
      return [{ op, urn, type, before: old?.inputs, after: after?.inputs }];
    }),
    violations: events.flatMap(({ policyEvent }) =>
      policyEvent === undefined
        ? []
        : [
            {
              policy: policyEvent.policyName,
              resource: nameOf(policyEvent.resourceUrn ?? ""),
              message: plain(policyEvent.message),
              mandatory: policyEvent.enforcementLevel === "mandatory",
            },
          ],
    ),
    errors: said("error"),
    warnings: said("warning"),
    policyPacks: events.flatMap(({ summaryEvent }) =>
      Object.keys(summaryEvent?.PolicyPacks ?? {}).map((name) => name.split("|")[0] ?? name),
    ),
  };
}

/** A message without the engine's marks for colours. */
function plain(message: string): string {
  return message.replace(/<\{%[a-z0-9 ]+%\}>/g, "").trim();
}
