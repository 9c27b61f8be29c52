#!/bin/bash
# A root by overlay, as a router has it where files cannot share blocks: pjdfstest, and the Debian of root.sh.
set -e
"$(dirname "$0")/pjdfstest.sh" overlay
"$(dirname "$0")/root.sh" overlay
