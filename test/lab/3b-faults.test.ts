// The selection of test/faults that runs on every `scripts/test`, on the lab that is up; all of it: `scripts/test faults`.
import "../faults/faults.test";
