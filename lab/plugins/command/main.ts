/**
 * A stand-in for the `command` plugin, for places where the vendor's plugins cannot be fetched. It speaks the same
 * protocol, keeps to the same schema and behaviour, and its state can be taken over by the real one and back.
 *
 * Usage: pulumi-resource-command ENGINE_ADDRESS (the engine starts it; the port goes to standard output)
 */
import * as grpc from "@grpc/grpc-js";
import * as engineRpc from "@pulumi/pulumi/proto/engine_grpc_pb.js";
import * as engine from "@pulumi/pulumi/proto/engine_pb.js";
import * as plugin from "@pulumi/pulumi/proto/plugin_pb.js";
import * as rpc from "@pulumi/pulumi/proto/provider_grpc_pb.js";
import * as proto from "@pulumi/pulumi/proto/provider_pb.js";
import { Empty } from "google-protobuf/google/protobuf/empty_pb.js";
import { type JavaScriptValue, Struct } from "google-protobuf/google/protobuf/struct_pb.js";
import type { Context } from "./context";
import { root } from "./diff";
import * as provider from "./provider";
import { type Failure, packageSchema } from "./schema";
import { normaliseMap, type PropertyMap } from "./values";

/** The version that this stands in for. */
const VERSION = "1.2.1";

/** Whole files travel in properties. */
const UNLIMITED = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };

/** An error message travels in a header: what a command wrote before it failed must not burst it. */
const LONGEST_ERROR = 1024 * 1024;

/** True when the engine sends the inputs of the last deployment, not only its outputs. */
let sendsOldInputs = false;
let host: engineRpc.EngineClient | undefined;
const running = new Set<AbortController>();

function attach(address: string): void {
  host = new engineRpc.EngineClient(address, grpc.credentials.createInsecure(), UNLIMITED);
}

/** Lines for the engine, in order. */
class Log {
  private sent: Promise<void> = Promise.resolve();

  constructor(private readonly urn: string) {}

  add(severity: engine.LogSeverity, message: string, ephemeral: boolean): void {
    const request = new engine.LogRequest();
    request.setSeverity(severity);
    request.setMessage(message);
    request.setUrn(this.urn);
    request.setEphemeral(ephemeral);
    this.sent = this.sent.then(
      () => new Promise((resolve) => (host ? host.log(request, () => resolve()) : resolve())),
    );
  }

  /** Resolves when everything has reached the engine: what comes after an operation's end is dropped there. */
  flush(): Promise<void> {
    return this.sent;
  }
}

const SEVERITIES = {
  debug: engine.LogSeverity.DEBUG,
  warning: engine.LogSeverity.WARNING,
  error: engine.LogSeverity.ERROR,
} as const;

/** Runs an operation that can be stopped by the engine or by its own time limit (seconds; 0 = none). */
async function operation<T>(urn: string, limit: number, work: (context: Context) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const log = new Log(urn);
  const stop = () => controller.abort(new Error("context deadline exceeded"));
  const timer = limit > 0 ? setTimeout(stop, limit * 1000) : undefined;
  running.add(controller);
  try {
    return await work({
      signal: controller.signal,
      status: (message) => log.add(engine.LogSeverity.INFO, message, true),
      report: (severity, message) => log.add(SEVERITIES[severity], message, false),
    });
  } finally {
    clearTimeout(timer);
    running.delete(controller);
    await log.flush();
  }
}

type Request = { readonly request: unknown };
type Handler = (call: { request: never }, callback: grpc.sendUnaryData<unknown>) => void;

/** An RPC method: a promise for the answer, an error in the form that the engine shows. */
function unary<I, O>(method: (request: I) => O | Promise<O>): Handler {
  return (call: Request, callback) => {
    (async () => method(call.request as I))().then(
      (answer) => callback(null, answer),
      (error: unknown) => {
        let details = error instanceof Error ? error.message : String(error);
        if (details.length > LONGEST_ERROR) {
          const half = LONGEST_ERROR / 2;
          details = `${details.slice(0, half)}\n[...]\n${details.slice(-half)}`;
        }
        callback({ code: grpc.status.UNKNOWN, details, metadata: new grpc.Metadata() }, null);
      },
    );
  };
}

const fromStruct = (struct: Struct | undefined): PropertyMap =>
  normaliseMap(struct?.toJavaScript() as PropertyMap | undefined);
const toStruct = (map: PropertyMap): Struct =>
  Struct.fromJavaScript(map as { [key: string]: JavaScriptValue });

/** `urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME` -> TYPE and NAME. */
function parseUrn(urn: string): { token: string; name: string } {
  const [, , qualified = "", ...name] = urn.split("::");
  return { token: qualified.replace(/^.*\$/, ""), name: name.join("::") };
}

/** Inputs whose value must not be shown: of a failure's property, the engine prints it, keys included. */
const UNSHOWN = new Set(["connection"]);

function failuresOf(failures: readonly Failure[]): proto.CheckFailure[] {
  return failures.map(({ property, reason }) => {
    const failure = new proto.CheckFailure();
    failure.setProperty(UNSHOWN.has(property) ? "" : property);
    failure.setReason(reason);
    return failure;
  });
}

const KINDS = {
  add: [proto.PropertyDiff.Kind.ADD, proto.PropertyDiff.Kind.ADD_REPLACE],
  delete: [proto.PropertyDiff.Kind.DELETE, proto.PropertyDiff.Kind.DELETE_REPLACE],
  update: [proto.PropertyDiff.Kind.UPDATE, proto.PropertyDiff.Kind.UPDATE_REPLACE],
} as const;

function diffAnswer({ changes }: provider.Difference): proto.DiffResponse {
  const answer = new proto.DiffResponse();
  const { DIFF_NONE, DIFF_SOME } = proto.DiffResponse.DiffChanges;
  answer.setChanges(changes.size > 0 ? DIFF_SOME : DIFF_NONE);
  answer.setHasdetaileddiff(true);
  const names = new Set<string>();
  const replaced = new Set<string>();
  for (const [path, { change, replaces }] of changes) {
    const detail = new proto.PropertyDiff();
    detail.setKind(KINDS[change][replaces ? 1 : 0]);
    answer.getDetaileddiffMap().set(path, detail);
    names.add(root(path));
    if (replaces) replaced.add(root(path));
  }
  answer.setDiffsList([...names]);
  answer.setReplacesList([...replaced]);
  return answer;
}

const service: grpc.UntypedServiceImplementation = {
  getPluginInfo: unary<Empty, plugin.PluginInfo>(() => {
    const info = new plugin.PluginInfo();
    info.setVersion(VERSION);
    return info;
  }),
  attach: unary<plugin.PluginAttach, Empty>((request) => {
    attach(request.getAddress());
    return new Empty();
  }),
  cancel: unary<Empty, Empty>(() => {
    for (const controller of running) controller.abort(new Error("context canceled"));
    return new Empty();
  }),
  getSchema: unary<proto.GetSchemaRequest, proto.GetSchemaResponse>(() => {
    const answer = new proto.GetSchemaResponse();
    answer.setSchema(packageSchema(VERSION));
    return answer;
  }),
  checkConfig: unary<proto.CheckRequest, proto.CheckResponse>((request) => {
    const answer = new proto.CheckResponse();
    answer.setInputs(request.getNews());
    return answer;
  }),
  diffConfig: unary<proto.DiffRequest, proto.DiffResponse>(() => diffAnswer({ changes: new Map() })),
  configure: unary<proto.ConfigureRequest, proto.ConfigureResponse>((request) => {
    sendsOldInputs = request.getSendsOldInputs() && request.getSendsOldInputsToDelete();
    const answer = new proto.ConfigureResponse();
    answer.setAcceptsecrets(true);
    answer.setSupportspreview(true);
    answer.setAcceptresources(true);
    answer.setAcceptoutputs(true);
    return answer;
  }),
  check: unary<proto.CheckRequest, proto.CheckResponse>((request) => {
    const { token } = parseUrn(request.getUrn());
    const { inputs, failures } = provider.checkInputs(token, fromStruct(request.getNews()));
    const answer = new proto.CheckResponse();
    answer.setInputs(toStruct(inputs));
    answer.setFailuresList(failuresOf(failures));
    return answer;
  }),
  diff: unary<proto.DiffRequest, proto.DiffResponse>((request) => {
    const { token } = parseUrn(request.getUrn());
    const state = fromStruct(request.getOlds());
    const before = sendsOldInputs ? fromStruct(request.getOldInputs()) : provider.inputsOf(token, state);
    return diffAnswer(
      provider.compare(token, before, state, fromStruct(request.getNews()), request.getIgnorechangesList()),
    );
  }),
  create: unary<proto.CreateRequest, proto.CreateResponse>((request) =>
    operation(request.getUrn(), request.getTimeout(), async (context) => {
      const { token, name } = parseUrn(request.getUrn());
      const inputs = fromStruct(request.getProperties());
      const { id, outputs } = await provider.create(token, name, inputs, request.getPreview(), context);
      const answer = new proto.CreateResponse();
      answer.setId(id);
      answer.setProperties(toStruct(outputs));
      return answer;
    }),
  ),
  read: unary<proto.ReadRequest, proto.ReadResponse>((request) => {
    const answer = new proto.ReadResponse();
    answer.setId(request.getId());
    answer.setProperties(request.getProperties());
    answer.setInputs(request.getInputs());
    return answer;
  }),
  update: unary<proto.UpdateRequest, proto.UpdateResponse>((request) =>
    operation(request.getUrn(), request.getTimeout(), async (context) => {
      const { token } = parseUrn(request.getUrn());
      const outputs = await provider.update(
        token,
        fromStruct(request.getOlds()),
        fromStruct(request.getNews()),
        request.getIgnorechangesList(),
        request.getPreview(),
        context,
      );
      const answer = new proto.UpdateResponse();
      answer.setProperties(toStruct(outputs));
      return answer;
    }),
  ),
  delete: unary<proto.DeleteRequest, Empty>((request) =>
    operation(request.getUrn(), request.getTimeout(), async (context) => {
      await provider.remove(parseUrn(request.getUrn()).token, fromStruct(request.getProperties()), context);
      return new Empty();
    }),
  ),
  invoke: unary<proto.InvokeRequest, proto.InvokeResponse>((request) =>
    operation("", 0, async (context) => {
      const { result, failures } = await provider.invoke(
        request.getTok(),
        fromStruct(request.getArgs()),
        context,
      );
      const answer = new proto.InvokeResponse();
      if (result) answer.setReturn(toStruct(result));
      answer.setFailuresList(failuresOf(failures));
      return answer;
    }),
  ),
} as unknown as grpc.UntypedServiceImplementation;

const address = process.argv.slice(2).find((argument) => !argument.startsWith("-"));
if (address) attach(address);

// A plugin whose engine was killed has no use left, and nobody else would end it.
const parent = process.ppid;
setInterval(() => process.ppid !== parent && process.exit(0), 1000).unref();

const server = new grpc.Server(UNLIMITED);
server.addService(rpc.ResourceProviderService, service);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) {
    process.stderr.write(`pulumi-resource-command: cannot listen on 127.0.0.1: ${error.message}\n`);
    process.exit(1);
  }
  process.stdout.write(`${port}\n`);
});
