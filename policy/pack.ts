/**
 * The policy pack: what a deployment of this project must keep, asked of every resource before anything is touched.
 *
 *     scripts/pulumi preview --policy-pack policy --stack STACK
 */
import { PolicyPack, type ResourceValidationPolicy, type StackValidationPolicy } from "@pulumi/policy";
import { type Rule, rules } from "./rules";
import { type StackRule, stackRules } from "./stackRules";

new PolicyPack("cosyvoice-lvs", {
  // All are mandatory: a rule that may be broken is a line that nobody reads.
  enforcementLevel: "mandatory",
  policies: [...rules.map(ofResource), ...stackRules.map(ofStack)],
});

function ofResource({ name, description, types, broken }: Rule): ResourceValidationPolicy {
  return {
    name,
    description,
    validateResource: (args, report) => {
      if (!types.includes(args.type)) return;
      const { type, name: resource, props: inputs, provider } = args;
      for (const message of broken({ type, name: resource, inputs, provider: provider?.props }))
        report(message);
    },
  };
}

function ofStack({ name, description, broken }: StackRule): StackValidationPolicy {
  return {
    name,
    description,
    validateStack: ({ resources }, report) => {
      const declared = resources.map(({ type, name: resource, urn, props, propertyDependencies }) => ({
        type,
        name: resource,
        urn,
        inputs: props,
        leadsTo: Object.values(propertyDependencies).flatMap((those) => those.map((one) => one.urn)),
      }));
      for (const { urn, message } of broken(declared)) report(message, urn);
    },
  };
}
