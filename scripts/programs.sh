#!/bin/bash
# Real programs at work on mounts for all users, over memory, a local directory
# and an OpenSSH server: version control, databases, compilers, backups, tests
# of file systems and locks. Needs root. Arguments limit it to some backends,
# and ONLY to the programs whose description matches it.
set -u
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lib-tools.sh"
. "$(dirname "$0")/lib-programs.sh"

[ "$(id -u)" = 0 ] || { say "the programs need root"; exit 1; }
smoke_packages || exit 1
packages go:golang pg_lsclusters:postgresql borg:borgbackup restic:restic stress-ng:stress-ng fio:fio python3:python3 \
	setfattr:attr runuser:util-linux || exit 1
[ -n "${SFTPBRIDGE_BUILT:-}" ] || build || exit 1
limit=600 # seconds for each
begin
chmod 755 "$work"
: >"$work/known_hosts"
user=root
sample "$work/sample"
setfattr -n user.comment -v remark "$work/sample/run.sh" || say "no extended attributes in $work"
ln "$work/sample/big.bin" "$work/sample/hard.bin"
repository "$work/repository"
go_module "$work/hello"
port=$(free_port)
trust_bridge "$port"
m=$work/mnt
mkdir "$m" "$work/local" "$work/upstream"
mounts+=("$m")
start_sshd

# program NAME COMMAND… checks a program on the backend.
program() {
	[[ "$backend: $1" =~ ${ONLY:-.} ]] && check "$backend: $1" "${@:2}"
}

for backend in ${*:-mem local upstream}; do
	case $backend in
	mem) source=mem: ;;
	local) source=$work/local ;;
	upstream) source=sftp://root@127.0.0.1:$sshd_port$work/upstream ;;
	*) say "no backend $backend"; exit 2 ;;
	esac
	start_bridge 2 serve --mount "$m" --allow-other --listen "127.0.0.1:$port" --host-key "$work/bridge_key" \
		--authorized-keys "$work/key.pub" --identity "$work/key" --known-hosts "$work/known_hosts" --ssh-config none \
		"$source" >/dev/null
	chmod 755 "$m"
	programs "$m"
	check_stop
done
summary
