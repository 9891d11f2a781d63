# shellcheck shell=bash
# Sourced by every program in scripts/: finds the repository, checks Node, installs the npm packages when they are
# missing or not those of package-lock.json; then `run_typescript FILE "$@"`.

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export REPOSITORY

# Ends the program with a message when Node is missing or too old.
require_node() {
	local found=none
	if command -v node >/dev/null; then found=$(node --version); fi
	local major minor
	IFS=. read -r major minor _ <<<"${found#v}"
	if [[ $found == none ]] || ((major < 20 || (major == 20 && minor < 19))); then
		echo "cosyvoice-lvs: needs Node.js 20.19 or newer with npm on the PATH, found: $found." >&2
		echo "Install it (your distribution's package where it is new enough, or nodejs.org), then run this again." >&2
		exit 1
	fi
}

# Installs what package-lock.json says, unless it is there. Two programs started at once install once.
require_npm_packages() {
	local lock=$REPOSITORY/package-lock.json modules=$REPOSITORY/node_modules
	local stamp=$modules/.cosyvoice-lvs-lock hash
	hash=$(sha256sum "$lock" | cut -d' ' -f1)
	[[ -r $stamp && $(<"$stamp") == "$hash" ]] && return
	(
		flock 9
		# Another process may have been at it while this one waited.
		[[ -r $stamp && $(<"$stamp") == "$hash" ]] && exit 0
		if ! node "$REPOSITORY/scripts/lib/npm-packages-match.mjs" "$REPOSITORY"; then
			echo "cosyvoice-lvs: installing the npm packages of package-lock.json" >&2
			if ! (cd "$REPOSITORY" && npm ci --no-audit --no-fund --loglevel=error >&2); then
				echo "cosyvoice-lvs: 'npm ci' failed in $REPOSITORY, see above. Can npm reach its registry?" >&2
				exit 1
			fi
		fi
		mkdir -p "$modules"
		echo "$hash" >"$stamp"
	) 9<"$lock"
}

# help_by_comment "$@": where --help is asked for, prints what the program says of itself at its top, and ends it. For those that
# have no help of their own.
help_by_comment() {
	[[ ${1-} == --help || ${1-} == -h ]] || return 0
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
	exit 0
}

# run_typescript FILE [ARGUMENT...]: replaces this shell by the program FILE (relative to the repository).
run_typescript() {
	local file=$1
	shift
	# tsx is named by its path, so that the user's working directory does not matter.
	exec node --import "$REPOSITORY/node_modules/tsx/dist/loader.mjs" "$REPOSITORY/$file" "$@"
}

require_node
require_npm_packages || exit 1
