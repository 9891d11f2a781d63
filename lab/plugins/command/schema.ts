import {
  isArchive,
  isAsset,
  isMap,
  isUnknown,
  type PropertyMap,
  secret,
  UNKNOWN,
  unwrap,
  type Value,
} from "./values";

/** What a property may hold. */
export type Kind =
  | { readonly is: "string" | "number" | "integer" | "boolean" | "any" | "source" }
  | { readonly is: "list" | "map"; readonly of: Kind }
  | { readonly is: "object"; readonly type: ObjectType };

/** A property of a resource or of an object inside it. */
export interface Field {
  readonly kind: Kind;
  readonly optional?: true;
  readonly secret?: true;
  /** A change replaces the resource instead of updating it. */
  readonly replaces?: true;
  readonly default?: string | number;
}

/** A named set of properties. The name is the one that the real plugin's messages use. */
export interface ObjectType {
  readonly name: string;
  readonly fields: Readonly<Record<string, Field>>;
}

/** A property that was refused, and why. */
export interface Failure {
  readonly property: string;
  readonly reason: string;
}

const string: Kind = { is: "string" };
const integer: Kind = { is: "integer" };
const strings: Kind = { is: "list", of: string };
const environment: Field = { kind: { is: "map", of: string }, optional: true };
const text: Field = { kind: string, optional: true };
const flag: Field = { kind: { is: "boolean" }, optional: true };
const triggers: Field = { kind: { is: "list", of: { is: "any" } }, optional: true, replaces: true };

const endpoint: Record<string, Field> = {
  user: { kind: string, optional: true, default: "root" },
  password: { kind: string, optional: true, secret: true },
  host: { kind: string },
  port: { kind: { is: "number" }, optional: true, default: 22 },
  privateKey: { kind: string, optional: true, secret: true },
  privateKeyPassword: { kind: string, optional: true, secret: true },
  agentSocketPath: text,
  dialErrorLimit: { kind: integer, optional: true, default: 10 },
  perDialTimeout: { kind: integer, optional: true, default: 15 },
  hostKey: text,
};
const proxyConnection: ObjectType = { name: "remote.ProxyConnection", fields: endpoint };
const connection: ObjectType = {
  name: "remote.Connection",
  fields: { ...endpoint, proxy: { kind: { is: "object", type: proxyConnection }, optional: true } },
};
const toConnection: Field = { kind: { is: "object", type: connection }, secret: true };

const localBase: Record<string, Field> = {
  stdin: text,
  logging: text,
  interpreter: { kind: strings, optional: true },
  dir: text,
  environment,
  assetPaths: { kind: strings, optional: true },
  archivePaths: { kind: strings, optional: true },
  addPreviousOutputInEnv: flag,
};
const lifecycle: Record<string, Field> = { triggers, create: text, update: text, delete: text };

/** A resource of the plugin: its inputs, and whether it can be changed in place. */
export interface ResourceType {
  readonly inputs: ObjectType;
  readonly updatable: boolean;
}

/** Everything that can be in a program, by its token. */
export const RESOURCES: Readonly<Record<string, ResourceType>> = {
  "command:local:Command": {
    inputs: { name: "local.CommandInputs", fields: { ...lifecycle, ...localBase } },
    updatable: true,
  },
  "command:remote:Command": {
    inputs: {
      name: "remote.CommandInputs",
      fields: {
        ...lifecycle,
        stdin: text,
        logging: text,
        connection: toConnection,
        environment,
        addPreviousOutputInEnv: flag,
      },
    },
    updatable: true,
  },
  "command:remote:CopyToRemote": {
    inputs: {
      name: "remote.CopyToRemoteInputs",
      fields: {
        connection: toConnection,
        triggers,
        source: { kind: { is: "source" } },
        remotePath: { kind: string },
      },
    },
    updatable: true,
  },
  "command:remote:CopyFile": {
    inputs: {
      name: "remote.CopyFileInputs",
      fields: {
        connection: toConnection,
        triggers: { kind: triggers.kind, optional: true },
        localPath: { kind: string },
        remotePath: { kind: string },
      },
    },
    updatable: false,
  },
};

/** The inputs of the function `command:local:run`. */
export const RUN_INPUTS: ObjectType = {
  name: "local.RunInputs",
  fields: { ...localBase, command: { kind: string } },
};

/** The name of a value's type as the real plugin writes it. */
function actual(value: Value): string {
  if (typeof value === "number") return "float64";
  if (typeof value === "boolean") return "bool";
  if (Array.isArray(value)) return "[]interface {}";
  return isMap(value) ? "map[string]interface {}" : "string";
}

function expected(kind: Kind): string {
  switch (kind.is) {
    case "number":
      return "float64";
    case "integer":
      return "int";
    case "boolean":
      return "bool";
    case "list":
      return `[]${expected(kind.of)}`;
    case "map":
      return `map[string]${expected(kind.of)}`;
    case "object":
      return kind.type.name;
    case "source":
      return "types.AssetOrArchive";
    case "any":
      return "interface {}";
    default:
      return "string";
  }
}

function checkValue(owner: ObjectType, path: string, kind: Kind, wrapped: Value): Failure[] {
  const value = unwrap(wrapped);
  if (value === null || isUnknown(value)) return [];
  const wrong = (): Failure[] => [
    {
      property: path,
      reason: `Field '${path}' on '${owner.name}' must be a '${expected(kind)}'; got '${actual(value)}' instead`,
    },
  ];
  switch (kind.is) {
    case "any":
      return [];
    case "source":
      return isAsset(value) || isArchive(value) || isMap(value) ? [] : wrong();
    case "list":
      return Array.isArray(value)
        ? value.flatMap((item, i) => checkValue(owner, `${path}[${i}]`, kind.of, item))
        : wrong();
    case "map":
      return isMap(value)
        ? Object.entries(value).flatMap(([key, item]) =>
            checkValue(owner, `${path}[${key}] value`, kind.of, item),
          )
        : wrong();
    case "object": {
      if (!isMap(value)) return wrong();
      const failures = checkFields(kind.type, value);
      if (failures.length === 0) return [];
      const list = failures.map(({ property, reason }) => `\n\t${property}: ${reason}`).join("");
      const where = `${owner.name.replace(/^.*\./, "")}.${path}`;
      return [
        {
          property: path,
          reason: `An error occurred decoding '${where}': ${failures.length} failures decoding:${list}`,
        },
      ];
    }
    case "boolean":
      return typeof value === "boolean" ? [] : wrong();
    case "number":
    case "integer":
      return typeof value === "number" ? [] : wrong();
    case "string":
      return typeof value === "string" ? [] : wrong();
  }
}

function checkFields(type: ObjectType, map: PropertyMap): Failure[] {
  const failures: Failure[] = [];
  for (const [name, field] of Object.entries(type.fields)) {
    const value = map[name];
    if (value !== undefined) failures.push(...checkValue(type, name, field.kind, value));
    else if (!field.optional) {
      failures.push({ property: name, reason: `Missing required field '${name}' on '${type.name}'` });
    }
  }
  for (const name of Object.keys(map)) {
    if (!(name in type.fields)) {
      failures.push({ property: name, reason: `Unrecognized field '${name}' on '${type.name}'` });
    }
  }
  return failures;
}

/** Fills in defaults and puts the wrapper around secrets, at every depth. */
function complete(type: ObjectType, map: PropertyMap, defaults: boolean): PropertyMap {
  const result: PropertyMap = { ...map };
  for (const [name, field] of Object.entries(type.fields)) {
    let value = result[name];
    if (value === undefined) {
      if (!defaults || field.default === undefined) continue;
      value = field.default;
    }
    const inner = unwrap(value);
    let completed = inner;
    if (field.kind.is === "object" && isMap(inner)) completed = complete(field.kind.type, inner, defaults);
    else if (field.kind.is === "integer" && typeof inner === "number") completed = Math.trunc(inner);
    result[name] = inner !== value || field.secret ? secret(completed) : completed;
  }
  return result;
}

/** Checks inputs against their type, fills in defaults, marks what is always secret. */
export function check(type: ObjectType, inputs: PropertyMap): { inputs: PropertyMap; failures: Failure[] } {
  const failures = checkFields(type, inputs);
  const checked = complete(type, inputs, failures.length === 0);
  if (type.fields.source && failures.length === 0)
    failures.push(...checkSource(unwrap(inputs.source ?? null)));
  return { inputs: checked, failures };
}

function checkSource(source: Value): Failure[] {
  if (isUnknown(source)) return [{ property: "asset", reason: "either asset or archive must be set" }];
  if (isAsset(source)) {
    return source.path || typeof source.text === "string"
      ? []
      : [{ property: "asset", reason: "asset must be a path-based file asset or a text asset" }];
  }
  if (isArchive(source)) {
    return source.path
      ? []
      : [{ property: "archive", reason: "archive must be a path to a file or directory" }];
  }
  return [{ property: "asset", reason: "either asset or archive must be set" }];
}

/** A placeholder that stands for an output during a preview. */
export const COMPUTED: Value = UNKNOWN;

/** A package schema, enough for tools that ask a plugin what it offers. */
export function packageSchema(version: string): string {
  const property = (kind: Kind): PropertyMap => {
    switch (kind.is) {
      case "any":
        return { $ref: "pulumi.json#/Any" };
      case "source":
        return { $ref: "pulumi.json#/Asset" };
      case "list":
        return { type: "array", items: property(kind.of) };
      case "map":
        return { type: "object", additionalProperties: property(kind.of) };
      case "object":
        return { $ref: `#/types/command:${kind.type.name.replace(".", ":")}` };
      default:
        return { type: kind.is };
    }
  };
  const properties = (type: ObjectType): PropertyMap =>
    Object.fromEntries(Object.entries(type.fields).map(([name, field]) => [name, property(field.kind)]));
  const required = (type: ObjectType): string[] =>
    Object.entries(type.fields).flatMap(([name, field]) => (field.optional ? [] : [name]));
  const output: PropertyMap = { stdout: { type: "string" }, stderr: { type: "string" } };
  return JSON.stringify({
    name: "command",
    version,
    types: Object.fromEntries(
      [connection, proxyConnection].map((type) => [
        `command:${type.name.replace(".", ":")}`,
        { type: "object", properties: properties(type), required: required(type) },
      ]),
    ),
    resources: Object.fromEntries(
      Object.entries(RESOURCES).map(([token, { inputs }]) => [
        token,
        {
          inputProperties: properties(inputs),
          requiredInputs: required(inputs),
          properties: { ...properties(inputs), ...("create" in inputs.fields ? output : {}) },
        },
      ]),
    ),
  });
}
