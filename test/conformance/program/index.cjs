// Plain CommonJS: the suite runs this some twenty times, and nothing starts faster.
const { readFileSync } = require("node:fs");
const pulumi = require("@pulumi/pulumi");
const { local, remote } = require("@pulumi/command");

const TYPES = {
  "local.Command": local.Command,
  "remote.Command": remote.Command,
  "remote.CopyToRemote": remote.CopyToRemote,
  "remote.CopyFile": remote.CopyFile,
};

/** Turns { $secret: x }, { $text: x }, { $file: x }, { $archive: x } into what they stand for. */
function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (typeof value !== "object" || value === null) return value;
  if ("$secret" in value) return pulumi.secret(revive(value.$secret));
  if ("$text" in value) return new pulumi.asset.StringAsset(value.$text);
  if ("$file" in value) return new pulumi.asset.FileAsset(value.$file);
  if ("$archive" in value) return new pulumi.asset.FileArchive(value.$archive);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item)]));
}

const { resources, run } = JSON.parse(readFileSync(process.env.CONFORMANCE_PROGRAM, "utf8"));
const made = {};
for (const { name, type, args, options = {} } of resources) {
  const { dependsOn = [], ...rest } = options;
  made[name] = new TYPES[type](name, revive(args), { ...rest, dependsOn: dependsOn.map((other) => made[other]) });
}
if (run) exports.run = local.runOutput(revive(run)).stdout;
