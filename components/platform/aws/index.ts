import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { formatProblems } from "../../../config/load";
import type { ClusterConfig } from "../../../config/schema";
import type { AwsConfig } from "../../../config/sections/aws";
import { preflight } from "../../remote/preflight";
import type { Machine } from "../machine";
import { type AwsFacts, readFacts } from "./facts";
import { awsProblems } from "./findings";
import { answeringDirector } from "./jump";
import { AwsPlatform } from "./platform";

/** With which the names of everything on AWS begin. */
const NAME = "cosyvoice";

/**
 * The platform aws of a stack. What AWS would refuse is said first, and nothing is made then.
 *
 * @throws RunError with every finding.
 */
export async function awsPlatform(config: ClusterConfig, section: AwsConfig): Promise<AwsPlatform> {
  const stack = pulumi.getStack();
  const provider = new aws.Provider("aws", {
    region: section.region as aws.Region,
    defaultTags: { tags: { "cosyvoice-lvs:stack": stack } },
  });
  const facts = await readFacts(section, { stack, platform: NAME }, { provider }).catch((error: unknown) => {
    throw new pulumi.RunError(
      `AWS could not be asked; nothing was touched: ${error instanceof Error ? error.message : error}\n  fix: log in (aws sso login, or set AWS_PROFILE), and check that aws sts get-caller-identity answers`,
    );
  });
  const problems = awsProblems(section, facts);
  if (problems.length > 0) throw new pulumi.RunError(formatProblems(problems));
  const jumpDirector = await answeringDirector(
    config.directors.map(({ name }) => name),
    addressesOfDirectors(config, section, facts),
  );
  const platform = new AwsPlatform(
    NAME,
    { config, aws: section, jumpDirector },
    { providers: { aws: provider } },
  );
  if (!pulumi.runtime.isDryRun()) await preflight(thoseThatRun(platform.machines, facts));
  return platform;
}

function addressesOfDirectors(config: ClusterConfig, { access }: AwsConfig, facts: AwsFacts) {
  if (access === "internet") return facts.directors;
  return Object.fromEntries(config.directors.map(({ name, address }) => [name, address]));
}

/** A machine that is still to be made is waited for by its own resources. */
function thoseThatRun(machines: readonly Machine[], { running }: AwsFacts): readonly Machine[] {
  const there = new Set(running);
  return machines.filter(({ address }) => there.has(address));
}
