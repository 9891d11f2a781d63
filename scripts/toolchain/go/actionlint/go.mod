module cosyvoice-lvs/toolchain/actionlint

go 1.24.0

require github.com/rhysd/actionlint v1.7.8
