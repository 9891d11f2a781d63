import * as aws from "@pulumi/aws";
import type * as pulumi from "@pulumi/pulumi";

/**
 * The image that machines of one kind start from. What an SSM parameter names today is written down in a parameter of the stack, and
 * there it stays: next year's real server is made of what its neighbours are.
 *
 * @param image an AMI, or the name of an SSM parameter that has one.
 */
export function pinnedImage(
  name: string,
  image: string,
  opts: pulumi.CustomResourceOptions,
): pulumi.Input<string> {
  if (image.startsWith("ami-")) return image;
  const { parent } = opts;
  const today = aws.ssm.getParameterOutput({ name: image }, parent === undefined ? {} : { parent });
  const pinned = new aws.ssm.Parameter(
    name,
    {
      type: "String",
      // The id of a public image is no secret; `value` would make it one.
      insecureValue: today.insecureValue,
      description: `cosyvoice-lvs: what ${image} was when the stack was made`,
    },
    { ...opts, ignoreChanges: ["insecureValue", "description"] },
  );
  return pinned.insecureValue;
}
