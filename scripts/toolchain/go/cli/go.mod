module cosyvoice-lvs/toolchain/cli

go 1.24.0

require (
	github.com/pulumi/pulumi/pkg/v3 v3.185.0
	github.com/pulumi/pulumi/sdk/v3 v3.185.0
)
