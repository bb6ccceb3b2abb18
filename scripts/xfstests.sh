#!/bin/bash
# Runs tests of xfstests (https://git.kernel.org/pub/scm/fs/xfs/xfstests-dev.git),
# which has to be in $XFSTESTS_DIR, as root on mounts that mount(8) makes, over
# memory, a local directory and an OpenSSH server. Which tests is in
# scripts/xfstests.set, and which of them fail for what reason in
# scripts/xfstests.excluded. Arguments limit it to some backends, and TESTS to
# some tests ("001 088").
set -u
. "$(dirname "$0")/lib.sh"
table=$root/scripts/xfstests.excluded

[ "$(id -u)" = 0 ] || { say "xfstests needs root"; exit 1; }
: "${XFSTESTS_DIR:?says where xfstests has been cloned}"
XFSTESTS_DIR=$(cd "$XFSTESTS_DIR" && pwd) || exit 1
packages cc:gcc make:make autoreconf:autoconf automake:automake libtoolize:libtool perl:perl bc:bc gawk:gawk \
	python3:python3 getfattr:attr getfacl:acl fuser:psmisc uuidgen:uuid-runtime xfs_io:xfsprogs fio:fio \
	fusermount3:fuse3 sshd:openssh-server || exit 1
if [ ! -x "$XFSTESTS_DIR/ltp/fsstress" ]; then
	apt-get -qq install -y libacl1-dev libaio-dev libattr1-dev libcap-dev libgdbm-dev libtool-bin liburing-dev \
		pkg-config uuid-dev xfslibs-dev </dev/null >/dev/null 2>&1
	make -C "$XFSTESTS_DIR" >/dev/null 2>&1 || { say "cannot build xfstests in $XFSTESTS_DIR"; exit 1; }
fi
[ -n "${SFTPBRIDGE_BUILT:-}" ] || build || exit 1
begin
chmod 755 "$work"
: >"$work/known_hosts"
type=sftpbridge-$$
helper=/sbin/mount.fuse.$type
users=()
mounts=("$work/test" "$work/scratch" "$work/beneath/$type-test" "$work/beneath/$type-scratch")
mkdir -p "${mounts[@]}"

# leave takes from this machine what only the tests need.
leave() {
	local status=$? u
	umount -f "$work/test" "$work/scratch" 2>/dev/null
	rm -f "$helper"
	for u in "${users[@]}"; do
		userdel "$u"
	done
	(exit $status)
	finish
}
trap leave EXIT

# prepare makes the users that the tests know, and file systems of a limited size
# for what is beneath the mounts, since some tests fill what they get.
prepare() {
	local u
	for u in fsgqa fsgqa2 123456-fsgqa; do
		id "$u" >/dev/null 2>&1 && continue
		useradd -M -d / -s /bin/bash "$u" || return
		users+=("$u")
	done
	for u in test scratch; do
		mount -t tmpfs -o size=2G,mode=755 tmpfs "$work/beneath/$type-$u" || return
	done
}

# configure BACKEND OPTIONS has mount(8) show a backend, where $name stands for
# one of two directories, as what xfstests takes for its two devices. It looks for
# the type fuse.
configure() {
	cat >"$helper" <<-END
		#!/bin/sh
		name=\$1
		shift
		exec "$bin" "$1" -o "fsname=\$name,allow_other,suid,dev$2" "\$@" >/dev/null 2>>"$work/bridge.log"
	END
	cat >"$work/df" <<-END
		#!/bin/sh
		$(command -v df) "\$@" | sed 's/ fuse\.sftpbridge / fuse /'
	END
	cat >"$work/config" <<-END
		export FSTYP=fuse FUSE_SUBTYP=.$type RESULT_BASE=$work/results DF_PROG="$work/df -T -P"
		export TEST_DEV=$type-test TEST_DIR=$work/test SCRATCH_DEV=$type-scratch SCRATCH_MNT=$work/scratch
		bash() { timeout -k 5 ${LIMIT:-120} bash "\$@"; } # in which each test runs
	END
	chmod 755 "$helper" "$work/df"
}

# set_of BACKEND lists the tests to run: those of the set, without those that
# are left out on this backend.
set_of() {
	tr -s ' ' '\n' < <(sed 's/#.*//' "$root/scripts/xfstests.set") | grep . | LC_ALL=C sort |
		LC_ALL=C comm -23 - <(excused "$1" left)
}

# excused BACKEND VERDICT lists tests of the table: test, backends, verdict, reason.
excused() {
	sed 's/#.*//' "$table" | awk -v backend="$1" -v verdict="$2" 'NF == 0 { next }
		NF != 4 || $3 !~ /^(fails|left)$/ { print "what is " $0 "?" >"/dev/stderr" }
		$3 == verdict && ($2 == "all" || index("," $2 ",", "," backend ",")) { print $1 }' | LC_ALL=C sort
}

# verdicts LOG FILE takes from what check has printed which tests passed, failed
# and did not run.
verdicts() {
	awk -v tests="$1" '
		function all(verdict, from,   i) { for (i = from; i <= NF; i++) said[substr($i, 9)] = verdict }
		/^Ran:/      { all("passed", 2) }
		/^Not run:/  { all("notrun", 3) }
		/^Failures:/ { all("failed", 2) }
		END { n = split(tests, t, " "); for (i = 1; i <= n; i++) print t[i], (t[i] in said ? said[t[i]] : "failed") }' "$2"
}

# with RESULT VERDICT lists tests.
with() { awk -v verdict="$2" '$2 == verdict { print $1 }' "$1"; }

# expected RESULT EXCUSED fails, and says which, if other tests failed than those
# that are excused, or none ran at all.
expected() {
	local bad good t
	bad=$(with "$1" failed | LC_ALL=C comm -23 - "$2")
	good=$(with "$1" passed | LC_ALL=C comm -12 - "$2")
	for t in $bad; do
		echo "generic/$t should pass:"
		diff "$XFSTESTS_DIR/tests/generic/$t.out" "$work/results/generic/$t.out.bad" | head -n 12
	done
	[ -z "$good" ] || echo "these pass, and are excused in $table:" $good
	[ -z "$bad$good" ] && [ -n "$(with "$1" passed)" ]
}

# over NAME BACKEND OPTIONS runs the tests on mounts of a backend.
over() {
	local result=$work/result.$1 tests began=$SECONDS
	tests=${TESTS:-$(set_of "$1")}
	configure "$2" "${3:-}"
	rm -rf "$work/results"
	mkdir "$work/results"
	(cd "$XFSTESTS_DIR" && HOST_OPTIONS=$work/config exec timeout -k 10 3600 ./check $(printf 'generic/%s ' $tests)) \
		>"$work/check.$1" 2>&1 </dev/null &
	pids+=($!) # for leave to be able to end it
	wait $!
	umount -f "$work/test" "$work/scratch" 2>/dev/null
	find "$work/beneath" -mindepth 2 -delete
	verdicts "$(echo $tests)" "$work/check.$1" | LC_ALL=C sort >"$result"
	excused "$1" fails >"$work/excused"
	echo "      $1: $(with "$result" passed | wc -l) passed, $(with "$result" failed | wc -l) failed," \
		"$(with "$result" notrun | wc -l) cannot run, in $((SECONDS - began)) s"
	expected "$result" "$work/excused" >"$out"
	count "xfstests over $1" $?
	[ -z "${KEEP:-}" ] || cp -r "$result" "$work/check.$1" "$KEEP/"
}

prepare || exit 1
for backend in ${*:-mem local upstream}; do
	case $backend in
	mem) over mem mem: ;;
	local) over local "$work/beneath/\$name" ;;
	upstream)
		start_sshd
		over upstream "sftp://root@127.0.0.1:$sshd_port$work/beneath/\$name" \
			",identity=$work/key,known_hosts=$work/known_hosts,ssh_config=none"
		;;
	*) say "no backend $backend"; exit 2 ;;
	esac
done
summary
