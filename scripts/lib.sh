# Common to the scripts, which source it: the checkout, packages, a private
# sshd, the bridge, and checks that are counted.

set -a # what check runs in a process of its own needs functions and variables
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="/usr/local/go/bin:$PATH:/usr/sbin:/sbin" HOME="${HOME:-/root}"
bin=$root/bin/sftpbridge
work=
passed=0
failed=0
pids=()
mounts=()
out= # where the output of the last check is

say() { printf '%s\n' "$*" >&2; }

# as_root COMMAND… runs it as root.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# packages COMMAND:PACKAGE… installs the Debian packages whose command is
# missing.
packages() {
	local pair missing=()
	for pair in "$@"; do
		command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
	done
	[ ${#missing[@]} = 0 ] && return
	say "installing ${missing[*]}"
	local try
	for try in 1 2 3; do
		if as_root apt-get -qq update </dev/null >/dev/null &&
			as_root env DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null; then
			return
		fi
		sleep $((try * 3))
	done
	say "cannot install ${missing[*]}"
	return 1
}

# build makes the command, in bin.
build() {
	(
		cd "$root" || exit
		git status >/dev/null 2>&1 || export GOFLAGS=-buildvcs=false
		go build -o "$bin" ./cmd/sftpbridge
	)
}

# begin makes the directory $work for what follows, and sees to its end.
begin() {
	work=$(mktemp -d /tmp/sftpbridge.XXXXXX)
	out=$work/out
	trap finish EXIT
	trap 'exit 1' INT TERM HUP
	ssh-keygen -q -t ed25519 -N '' -f "$work/key"
}

# finish undoes what the script has started.
finish() {
	local m p status=$?
	for m in "${mounts[@]}"; do
		mountpoint -q "$m" 2>/dev/null && umount -l "$m" 2>/dev/null
	done
	for p in "${pids[@]}"; do
		kill -CONT $p 2>/dev/null
		kill $p 2>/dev/null
	done
	for p in "${pids[@]}"; do
		wait $p 2>/dev/null
	done
	if [ $failed = 0 ] && [ $status = 0 ]; then
		rm -rf --one-file-system "$work"
	else
		say "what was left is in $work"
	fi
}

# summary is the last line of a script, and its exit status.
summary() {
	echo "$passed passed, $failed failed"
	[ $failed = 0 ]
}

# check NAME COMMAND… runs a command, or a function of the script with errexit,
# for at most two minutes, and counts whether it succeeds.
check() {
	local name=$1
	shift
	timeout -k 5 "${limit:-120}" bash -eu -o pipefail -c '"$@"' check "$@" >"$out" 2>&1 </dev/null
	count "$name" $?
}

# count NAME STATUS counts and tells how something went.
count() {
	if [ "$2" = 0 ]; then
		passed=$((passed + 1))
		echo "ok    $1"
		return
	fi
	failed=$((failed + 1))
	echo "FAIL  $1 (status $2)"
	tail -n 25 "$out" | sed 's/^/      /'
}

# poll SECONDS COMMAND… waits until the command succeeds.
poll() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.1
	done
}

# free_port prints a port of 127.0.0.1 where nobody listens.
free_port() {
	local port
	while :; do
		port=$((20000 + RANDOM % 12000))
		(exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || break
	done
	echo $port
}

# listening PORT succeeds if an SSH server answers there.
listening() {
	local banner
	exec 9<>/dev/tcp/127.0.0.1/$1 || return 1
	read -r -t 2 -u 9 banner
	exec 9>&-
	[[ $banner == SSH-* ]]
}

# start_sshd [SUBSYSTEM] starts a private OpenSSH server: $sshd_port, $sshd_pid,
# for the user who runs this with the key $work/key.
start_sshd() {
	local dir=$work/sshd
	mkdir -p "$dir"
	as_root mkdir -p /run/sshd
	ssh-keygen -q -t ed25519 -N '' -f "$dir/host_key"
	sshd_port=$(free_port)
	cat >"$dir/config" <<-END
		Port $sshd_port
		ListenAddress 127.0.0.1
		HostKey $dir/host_key
		AuthorizedKeysFile $work/key.pub
		PidFile none
		StrictModes no
		UsePAM no
		PermitRootLogin prohibit-password
		PasswordAuthentication no
		MaxStartups 100
		MaxSessions 50
		Subsystem sftp ${1:-internal-sftp}
	END
	/usr/sbin/sshd -D -f "$dir/config" -E "$dir/log" &
	sshd_pid=$!
	pids+=($sshd_pid)
	echo "[127.0.0.1]:$sshd_port $(cut -d' ' -f1,2 "$dir/host_key.pub")" >>"$work/known_hosts"
	poll 20 listening $sshd_port || { say "sshd does not answer"; cat "$dir/log" >&2; exit 1; }
}

# start_bridge LINES ARGUMENTS… starts sftpbridge and waits until as many doors
# are open: $bridge_pid.
start_bridge() {
	local lines=$1
	shift
	: >"$work/bridge.out" # not to take the lines of an earlier one for its own
	"$bin" "$@" >"$work/bridge.out" 2>"$work/bridge.log" </dev/null &
	bridge_pid=$!
	pids+=($bridge_pid)
	poll 30 doors_open $lines || { say "sftpbridge does not start:"; cat "$work/bridge.log" >&2; exit 1; }
	cat "$work/bridge.out"
}

doors_open() {
	kill -0 $bridge_pid && [ "$(grep -cE '^(mounted|serving) ' "$work/bridge.out")" -ge "$1" ]
}

# check_stop ends the bridge by SIGTERM: it has to exit 0, and leave nothing
# mounted.
check_stop() {
	local m status out=$work/bridge.log
	kill -TERM $bridge_pid
	poll 40 gone $bridge_pid || kill -KILL $bridge_pid
	wait $bridge_pid
	status=$?
	for m in "${mounts[@]}"; do
		grep -qF " $m " /proc/self/mounts && status="$status, $m is still mounted"
	done
	count "SIGTERM closes everything and exits 0" "$status"
}

gone() { ! kill -0 "$1"; }

# trust_bridge PORT makes a host key for the bridge, $work/bridge_key, and has
# the clients know it.
trust_bridge() {
	ssh-keygen -q -t ed25519 -N '' -f "$work/bridge_key"
	echo "[127.0.0.1]:$1 $(cut -d' ' -f1,2 "$work/bridge_key.pub")" >>"$work/known_hosts"
}

# descendants PID prints the process ids below a process.
descendants() {
	local p
	for p in $(ps -o pid= --ppid "$1"); do
		echo $p
		descendants $p
	done
}
