import { join } from "node:path";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { readInventory } from "../cluster-cli/inventory";
import { deploy, lastLine, runPulumi } from "../cluster-cli/pulumi";
import { stateDir } from "../lib/paths";
import { type CertificateStack, keepCertificate } from "./keep";
import { issueByLego } from "./lego";

interface Options {
  readonly stack: string;
  readonly email: string;
  readonly dns: string;
  readonly server?: string;
  readonly days: number;
  readonly deploy: boolean;
}

const LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory";

function days(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("Give a whole number of days.");
  return value;
}

const program = new Command("scripts/certificate")
  .description(
    "Renews a stack's certificate: when the one that is set is about to expire, gets a new one from a CA by ACME (with a DNS record), sets it and deploys it. For a daily job.",
  )
  .requiredOption("-s, --stack <name>", "the stack")
  .requiredOption("--email <address>", "address that the CA writes to about problems with the certificate")
  .requiredOption(
    "--dns <provider>",
    "DNS provider of the name, as lego calls it (lego dnshelp); its credentials come from the environment",
  )
  .option("--server <url>", "URL of the CA's ACME directory", LETS_ENCRYPT)
  .option("--days <number>", "renew a certificate this many days before it expires", days, 30)
  .option("--no-deploy", "set the certificate but deploy nothing: for a stack that is not deployed yet")
  .argument("[lego options...]", "further options for lego, after --")
  .exitOverride()
  .addHelpText(
    "after",
    `
Needs the program lego (Debian: apt-get install lego).

Example, as a line of a crontab:
  17 4 * * *  cd cosyvoice-lvs && CLOUDFLARE_DNS_API_TOKEN_FILE=~/.token scripts/certificate --stack onprem --email ops@example.org --dns cloudflare`,
  )
  .action(
    async (legoOptions: string[], { stack, email, dns, server, days: limit, deploy: deploys }: Options) => {
      const directory = join(stateDir(), "acme", stack, new URL(server ?? LETS_ENCRYPT).host);
      await keepCertificate(pulumiStack(stack), {
        days: limit,
        issue: (serverName) =>
          issueByLego(serverName, limit, { directory, email, dns, server, more: legoOptions }),
        now: () => new Date(),
        say: console.log,
        deploy: deploys,
      });
    },
  );

function pulumiStack(stack: string): CertificateStack {
  return {
    async get(key) {
      const { exitCode, stdout, stderr } = await runPulumi(stack, ["config", "get", "--path", key]);
      if (exitCode === 0) return stdout.trimEnd();
      if (/not found/.test(stderr)) return undefined;
      throw new Error(`pulumi config get ${key}: ${lastLine({ exitCode, stdout, stderr })}`);
    },
    async setSecret(key, text) {
      const result = await runPulumi(stack, ["config", "set", "--secret", key], text);
      if (result.exitCode !== 0) throw new Error(`pulumi config set ${key}: ${lastLine(result)}`);
    },
    async deployed() {
      const { exitCode, stdout } = await runPulumi(stack, ["stack", "output", "inventory", "--json"]);
      // A stack that was never deployed has none.
      if (exitCode !== 0 || stdout.trim() === "") return undefined;
      return (await readInventory(stack)).https?.certificate;
    },
    async deploy() {
      if (!(await deploy(stack)))
        throw new Error("pulumi up failed, see above. The next run tries it again.");
    },
  };
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else {
    console.error(`scripts/certificate: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
