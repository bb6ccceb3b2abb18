#!/bin/bash
# Runs pjdfstest (https://github.com/pjd/pjdfstest), which has to be in
# $PJDFSTEST_DIR, as root on mounts for all users over memory, a local directory
# and an OpenSSH server, and compares with what the same tests say of this
# machine's own file systems. Arguments limit it to some backends, and TESTS to
# some tests ("chmod/00 rename").
set -u
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lib-tools.sh"
table=$root/scripts/pjdfstest.upstream

[ "$(id -u)" = 0 ] || { say "pjdfstest needs root"; exit 1; }
: "${PJDFSTEST_DIR:?says where https://github.com/pjd/pjdfstest has been cloned}"
packages cc:gcc make:make autoreconf:autoconf automake:automake perl:perl openssl:openssl fusermount3:fuse3 \
	sshd:openssh-server || exit 1
if [ ! -x "$PJDFSTEST_DIR/pjdfstest" ]; then
	(cd "$PJDFSTEST_DIR" && autoreconf -ifs && ./configure && make pjdfstest) >/dev/null 2>&1 ||
		{ say "cannot build pjdfstest in $PJDFSTEST_DIR"; exit 1; }
fi
[ -n "${SFTPBRIDGE_BUILT:-}" ] || build || exit 1
begin
chmod 755 "$work"
: >"$work/known_hosts"

# one FILE DIR runs one file of tests in a directory of its own below DIR and
# prints a line for each test: file/number, ok or failed, and what it says.
one() {
	local name=${1#"$PJDFSTEST_DIR"/tests/} dir
	name=${name%.t}
	dir=$2/${name//\//-}
	mkdir -m 755 "$dir" && cd "$dir" || exit 1
	timeout -k 5 300 bash "$1" 2>/dev/null </dev/null |
		awk -v name="$name" '
			/^1\.\.[0-9]+/ { plan = substr($1, 4) + 0 }
			/^ok /     { n = $2 + 0; said[n] = "ok" }
			/^not ok / { n = $3 + 0; said[n] = /# TODO/ ? "ok" : "failed"; sub(/^not ok [0-9]+( - )?/, ""); text[n] = substr($0, 1, 300) }
			END { for (i = 1; i <= plan; i++) print name "/" i, (i in said ? said[i] : "failed"), text[i] }'
	cd / && rm -rf "$dir"
}

# suite DIR RESULT runs all tests in DIR.
suite() {
	local files=() t
	mkdir -p -m 755 "$1/pjd"
	for t in ${TESTS:-.}; do
		mapfile -t -O ${#files[@]} files < <(find "$PJDFSTEST_DIR/tests/$t" "$PJDFSTEST_DIR/tests/$t.t" -name '*.t' 2>/dev/null | sort)
	done
	printf '%s\0' "${files[@]//\/.\//\/}" |
		xargs -0 -P "${JOBS:-4}" -I{} bash -c 'one "$1" "$2"' one {} "$1/pjd" | LC_ALL=C sort >"$2"
	rm -rf "$1/pjd"
}

# numbers RESULT says how many tests passed and failed.
numbers() {
	echo "$(grep -c '^[^ ]* ok' "$1") passed, $(grep -c '^[^ ]* failed' "$1") failed"
}

# passing RESULT and failing RESULT list tests.
passing() { awk '$2 == "ok" { print $1 }' "$1"; }
failing() { awk '$2 == "failed" { print $1 }' "$1"; }

# expected RESULT EXCUSED fails, and says which, if tests failed that pass on
# this machine's file systems and are not in the list of the excused, if those
# in the list passed, or if tests did not run.
expected() {
	local bad=$work/bad good=$work/good missing=$work/missing
	awk '{ print $1 }' "$1" | LC_ALL=C sort | LC_ALL=C comm -13 - "$work/reference" >"$missing"
	failing "$1" | LC_ALL=C comm -12 - "$work/reference" | LC_ALL=C comm -23 - "$2" >"$bad"
	passing "$1" | LC_ALL=C comm -12 - "$2" >"$good"
	if [ -s "$bad" ]; then
		echo "these should pass:"
		awk 'NR == FNR { bad[$1]; next } $1 in bad' "$bad" "$1"
	fi
	if [ -s "$good" ]; then
		echo "these pass, and are excused in $table:"
		cat "$good"
	fi
	if [ -s "$missing" ]; then
		echo "$(wc -l <"$missing") tests did not run, of these files:"
		sed 's,/[0-9]*$,,' "$missing" | uniq | head -n 20
	fi
	[ ! -s "$bad" ] && [ ! -s "$good" ] && [ ! -s "$missing" ]
}

# judge NAME RESULT EXCUSED counts whether a backend is as it should be.
judge() {
	echo "      $1: $(numbers "$2")"
	expected "$2" "$3" >"$out"
	count "pjdfstest over $1" $?
	[ -z "${KEEP:-}" ] || cp "$2" "$KEEP/"
}

# excused lists the tests of a table: file, reason, numbers.
excused() {
	sed 's/#.*//' | awk 'NF == 0 { next }
		NF != 3 || $3 !~ /^[0-9,-]+$/ { print "what is " $0 "?" >"/dev/stderr" }
		{
			n = split($3, parts, ",")
			for (i = 1; i <= n; i++) {
				split(parts[i] "-" parts[i], ends, "-")
				for (k = ends[1]; k <= ends[2]; k++) print $1 "/" k
			}
		}' | LC_ALL=C sort
}

# reference lists what can be passed here: on tmpfs and on the file system of
# the work directory. It takes some time, and can be had from an earlier run.
reference() {
	mkdir "$work/tmpfs"
	mount -t tmpfs tmpfs "$work/tmpfs" || exit 1
	suite "$work/tmpfs" "$work/result.tmpfs"
	umount "$work/tmpfs"
	suite "$work" "$work/result.disk"
	LC_ALL=C comm -12 <(passing "$work/result.tmpfs") <(passing "$work/result.disk") >"$work/reference"
	echo "      tmpfs: $(numbers "$work/result.tmpfs")"
	echo "      $(stat -f -c %T "$work"): $(numbers "$work/result.disk")"
}

# over BACKEND-NAME EXCUSED ARGUMENTS… runs the suite on a mount.
over() {
	local name=$1 excused=$2
	shift 2
	mounts+=("$work/mnt")
	start_bridge 1 mount --allow-other "$@" "$work/mnt" >/dev/null
	chmod 755 "$work/mnt"
	suite "$work/mnt" "$work/result.$name"
	judge "$name" "$work/result.$name" "$excused"
	check_stop
}

if [ -n "${REFERENCE:-}" ]; then cp "$REFERENCE" "$work/reference"; else reference; fi
[ -s "$work/reference" ] || { say "no test passes anywhere"; exit 1; }
mkdir "$work/mnt"
: >"$work/none"
for backend in ${*:-mem local upstream}; do
	case $backend in
	mem) over mem "$work/none" mem: ;;
	local)
		mkdir "$work/local"
		over local "$work/none" "$work/local"
		;;
	upstream)
		start_sshd
		mkdir "$work/upstream"
		excused <"$table" >"$work/excused"
		over upstream "$work/excused" --identity "$work/key" --known-hosts "$work/known_hosts" --ssh-config none \
			"sftp://root@127.0.0.1:$sshd_port$work/upstream"
		;;
	*) say "no backend $backend"; exit 2 ;;
	esac
done
summary
