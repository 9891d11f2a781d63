import { paths } from "../render/paths";
import { at, type Declared, manifestOf } from "./declared";

const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;
const PASSWORD = /\bauth_pass\s+\S/;

/** Files that hold secrets and nothing else. */
const SECRET_FILES: readonly string[] = [
  paths.keepalivedAuth,
  paths.peerKey,
  paths.frontDoorKey,
  paths.frontDoorApiKeys,
  paths.frontDoorUsers,
  paths.frontDoorAskingKey,
  paths.watchPassword,
  paths.watchWebConfig,
  paths.watchCurl,
];

function holdsSecret(path: string, content: string): boolean {
  return (
    SECRET_FILES.includes(path) ||
    path.startsWith(`${paths.receiverSecrets}/`) ||
    PRIVATE_KEY.test(content) ||
    PASSWORD.test(content)
  );
}

/** A command's text is in the process list of its machine, and what is in its environment is one `ps e` away. */
export function inCommands({ name, inputs }: Declared): string[] {
  const texts = ["create", "update", "delete"].filter((key) => {
    const text = at(inputs, key);
    return typeof text === "string" && (PRIVATE_KEY.test(text) || PASSWORD.test(text));
  });
  const environment = at(inputs, "environment");
  const variables =
    typeof environment === "object" && environment !== null
      ? Object.keys(environment).filter((key) => /pass|secret|token|private|api_?key/i.test(key))
      : [];
  return [
    ...texts.map(
      (key) => `${key} of ${name} contains a key or a password. Send it in a layer that is secret.`,
    ),
    ...variables.map((key) => `${name} gets ${key} in its environment. Send it in a layer that is secret.`),
    ...(hasPassword(at(inputs, "connection"))
      ? [`${name} logs in with a password. Use a key: ssh.privateKeyFile, or the secret sshPrivateKey.`]
      : []),
  ];
}

function hasPassword(connection: unknown): boolean {
  return typeof connection === "object" && connection !== null && Object.hasOwn(connection, "password");
}

/** What is wrong with the files that a layer brings. */
export function inManifest(resource: Declared): string[] {
  const manifest = manifestOf(resource);
  return Object.entries(manifest?.files ?? {})
    .filter(([path, { content }]) => holdsSecret(path, content))
    .flatMap(([path, { mode }]) => {
      if (manifest?.secret !== true)
        return [
          `${resource.name} installs ${path}, which holds a secret, in a layer that is shown. Mark the layer secret: true.`,
        ];
      return mode.endsWith("0")
        ? []
        : [
            `${path} of ${resource.name} holds a secret, but its mode ${mode} lets everybody read it. Set it to 0640 or less.`,
          ];
    });
}
