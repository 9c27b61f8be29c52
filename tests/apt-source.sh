# Where this machine gets Debian from. Sourced by scripts that fetch packages, so that they use the same mirror,
# with the same key, and name no host themselves.
# shellcheck shell=bash

# The release's name, as the suites are called: bookworm.
codename() { . /etc/os-release; printf '%s' "$VERSION_CODENAME"; }

# own_source RELEASE - "URI<tab>file:line" of the machine's entry for a release's component main; apt itself
# reads the sources, so every format that it knows will do.
own_source() {
    apt-get indextargets --format '$(RELEASE) $(CODENAME) $(COMPONENT) $(REPO_URI) $(SOURCESENTRY)' 'Created-By: Packages' |
        awk -v r="$1" '($1 == r || $2 == r) && $3 == "main" { print $4 "\t" $5; exit }'
}

# signed_by FILE LINE URI - the entry's key as a Signed-By field (empty when it names none).
signed_by() {
    case $1 in
    *.sources) awk -v uri="${3%/}" '
            function flush() { if (hit && !said) { printf "%s", field; said = 1 } hit = 0; key = 0; field = "" }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[^ \t]/ { key = (tolower($1) == "signed-by:") }
            tolower($1) == "uris:" { for (i = 2; i <= NF; i++) { u = $i; sub(/\/+$/, "", u); if (u == uri) hit = 1 } }
            key { field = field $0 "\n" }
            END { flush() }' "$1" ;;
    *) sed -n "$2s/.*[[ ]signed-by=\([^] ]*\).*/Signed-By: \1/p" "$1" ;;
    esac
}

# debian_source SUITES COMPONENTS [SED-FOR-THE-URI] - a deb822 stanza with the machine's own URI and key. Prints
# nothing and fails when apt knows no source (or has no package lists yet: run `apt-get update` first).
debian_source() {
    local uri entry field
    IFS=$'\t' read -r uri entry < <(own_source "$(codename)") || return
    field=$(signed_by "${entry%:*}" "${entry##*:}" "$uri")
    [ -z "${3:-}" ] || uri=$(sed "$3" <<<"$uri")
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n%s' "$uri" "$1" "$2" "${field:+$field$'\n'}"
}
