# What programs.sh does on a mount, for scripts that have sourced lib.sh and
# lib-tools.sh: each function fails if anything is not as it should be.

git_() { git -C "$1" -c user.name=test -c user.email=test@localhost "${@:2}"; }

prog_git() {
	git clone -q "$work/repository" "$1"
	git_ "$1" fsck --strict
	git_ "$1" worktree add -q -b other "$1.other"
	seq 4000 >"$1.other/numbers-1"
	git_ "$1.other" commit -q -a -m other
	git_ "$1" merge -q other
	git_ "$1" rebase -q main
	git_ "$1" gc -q --prune=now
	git_ "$1" worktree remove "$1.other"
	git_ "$1" fsck --strict
	[ -z "$(git_ "$1" status --porcelain)" ]
	git clone -q --no-local "$1" "$work/clone.$backend"
	git_ "$work/clone.$backend" fsck --strict
	same "$1/numbers-1" "$work/clone.$backend/numbers-1"
}

# prog_sqlite FILE MODE has several processes add to one database.
prog_sqlite() {
	local i
	[ "$(sqlite3 "$1" "pragma journal_mode=$2; create table t(n integer primary key, who);")" = "$2" ]
	for i in 1 2 3; do
		for _ in $(seq 20); do
			echo "begin immediate; insert into t(who) values($i); update t set who = who where n % 7 = 0; commit;"
		done | sqlite3 -cmd '.timeout 60000' "$1" &
	done
	wait
	sqlite3 "$1" "begin; delete from t; rollback;"
	[ "$(sqlite3 "$1" 'select count(*), count(distinct who) from t;')" = '60|3' ]
	[ "$(sqlite3 "$1" 'pragma integrity_check;')" = ok ]
}

prog_postgres() {
	local bin
	bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
	mkdir "$1"
	chown postgres: "$1"
	pg() { (cd / && runuser -u postgres -- "$@"); }
	pg "$bin/initdb" -A trust -D "$1/data" >/dev/null
	pg "$bin/pg_ctl" -s -w -D "$1/data" -l "$1/log" -o "-k /tmp -h '' -p 54329" start
	trap 'pg "$bin/pg_ctl" -s -w -m immediate -D "$1/data" stop || true' EXIT
	pg "$bin/pgbench" -q -i -s 1 -h /tmp -p 54329 postgres
	pg "$bin/pgbench" -n -c 4 -T 5 -h /tmp -p 54329 postgres
	pg "$bin/pg_ctl" -s -w -m immediate -D "$1/data" stop # and recover from that
	pg "$bin/pg_ctl" -s -w -D "$1/data" -l "$1/log" -o "-k /tmp -h '' -p 54329" start
	pg "$bin/pgbench" -n -c 4 -T 3 -h /tmp -p 54329 postgres
	[ "$(pg "$bin/psql" -At -h /tmp -p 54329 postgres -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)')" = t ]
	pg "$bin/pg_ctl" -s -w -m fast -D "$1/data" stop
	trap - EXIT
}

# go_module DIR makes a module with a few packages.
go_module() {
	local p
	mkdir -p "$1"
	printf 'module hello\n\ngo 1.21\n' >"$1/go.mod"
	for p in a b c; do
		mkdir "$1/$p"
		printf 'package %s\n\nimport "strings"\n\nfunc Say() string { return strings.ToUpper("%s") }\n' $p $p >"$1/$p/$p.go"
		printf 'package %s\n\nimport "testing"\n\nfunc TestSay(t *testing.T) {\n\tif len(Say()) != 1 {\n\t\tt.Fail()\n\t}\n}\n' $p >"$1/$p/${p}_test.go"
	done
	printf 'package main\n\nimport (\n\t"fmt"\n\t"hello/a"\n\t"hello/b"\n\t"hello/c"\n)\n\nfunc main() { fmt.Println(a.Say() + b.Say() + c.Say()) }\n' >"$1/main.go"
}

# The build cache and all temporary files are on the mount, too.
prog_go() {
	cp -r "$work/hello" "$1"
	mkdir "$1.tmp" "$1.cache"
	cd "$1"
	export GOTMPDIR=$1.tmp GOCACHE=$1.cache GOFLAGS=-p=2
	go build -o hello .
	[ "$(./hello)" = ABC ]
	go test ./...
	[ "$(go build -v -o again . 2>&1)" = "" ] || { echo "built again"; return 1; }
}

# prog_rsync DIR OPTIONS copies twice; the second time there is nothing to do.
prog_rsync() {
	local second
	rsync "$2" "$work/sample/" "$1/"
	second=$(rsync -i "$2" "$work/sample/" "$1/")
	[ -z "$second" ] || { echo "the second run copied: $second"; return 1; }
	same "$work/sample" "$1"
	rsync "$2" "$1/" "$work/back.$backend/"
	second=$(rsync -i "$2" --checksum "$work/sample/" "$work/back.$backend/")
	[ -z "$second" ] || { echo "after the way back this differs: $second"; return 1; }
}

prog_borg() {
	export BORG_BASE_DIR=$work/borg.$backend BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
	borg init -e none "$1"
	borg create "$1::one" "$work/sample"
	borg create "$1::two" "$work/sample" "$work/repository"
	borg delete "$1::one"
	borg compact "$1"
	borg check --verify-data "$1"
	mkdir "$work/borg.$backend/out"
	(cd "$work/borg.$backend/out" && borg extract "$1::two")
	same "$work/sample" "$work/borg.$backend/out$work/sample"
}

# restic_steps REPOSITORY OUT [OPTION…]
restic_steps() {
	local repository=$1 out=$2
	shift 2
	export RESTIC_PASSWORD=secret RESTIC_CACHE_DIR=$work/restic.cache
	restic "$@" -q -r "$repository" init
	restic "$@" -q -r "$repository" backup "$work/sample"
	restic "$@" -q -r "$repository" backup "$work/sample" "$work/repository"
	restic "$@" -q -r "$repository" forget --keep-last 1 --prune --group-by host
	restic "$@" -q -r "$repository" check --read-data
	restic "$@" -q -r "$repository" restore latest --target "$out"
	same "$work/sample" "$out$work/sample"
}

prog_restic() { restic_steps "$1" "$work/restic.$backend"; }

prog_restic_sftp() {
	restic_steps "sftp:root@127.0.0.1:/restic-sftp" "$work/restic-sftp.$backend" \
		-o sftp.command="ssh $(ssh_options | tr '\n' ' ') -p $port root@127.0.0.1 -s sftp"
	[ -d "$1/restic-sftp/snapshots" ]
}

# prog_fio DIR ENGINE OPTION…
prog_fio() {
	mkdir "$1"
	fio --name=verify --directory="$1" --ioengine="$2" --size=8m --bsrange=1k-128k --rw=randrw --rwmixread=30 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --numjobs=2 --group_reporting --output-format=terse --fallocate=none \
		"${@:3}" >/dev/null
}

# prog_stress DIR STRESSOR… runs each for a moment. What the file system does
# not have is skipped by them.
prog_stress() {
	local s
	mkdir "$1"
	cd "$1"
	for s in "${@:2}"; do
		timeout 60 stress-ng --temp-path "$1" --verify --timeout 2 --"$s" 1 --"$s"-ops 200 --quiet ||
			{ echo "$s: status $?"; return 1; }
	done
	[ -z "$(ls -A "$1")" ] || { echo "left over:"; ls -A "$1"; return 1; }
}

prog_locks() { python3 "$root/scripts/locks.py" "$1"; }

# programs DIR runs all on the mount.
programs() {
	program "git clone, worktree, merge, gc, fsck" prog_git "$1/git"
	program "sqlite3, three writers, WAL" prog_sqlite "$1/wal.db" wal
	program "sqlite3, three writers, rollback journal" prog_sqlite "$1/rollback.db" delete
	program "PostgreSQL: initdb, pgbench, crash, recovery" prog_postgres "$1/postgres"
	program "go build and test" prog_go "$1/go"
	if [ "$backend" = upstream ]; then
		program "rsync -aH twice and back" prog_rsync "$1/rsync" -aH
	else
		program "rsync -aHAX twice and back" prog_rsync "$1/rsync" -aHAX
	fi
	program "borg" prog_borg "$1/borg"
	program "restic on the mount" prog_restic "$1/restic"
	program "restic through SFTP" prog_restic_sftp "$1"
	program "fio --verify, psync" prog_fio "$1/fio" psync
	program "fio --verify, mmap" prog_fio "$1/fio-mmap" mmap --bs=4k
	program "fio --verify, O_DIRECT" prog_fio "$1/fio-direct" psync --direct=1 --bsrange=4k-128k
	local fsize=fsize
	# Without fallocate, stress-ng writes instead until its time is up, which
	# it then takes for a failure.
	[ "$backend" = upstream ] && fsize=
	program "stress-ng files" prog_stress "$1/files" hdd fallocate seek readahead filename copy-file fiemap sendfile splice \
		sync-file utime access chmod chown flock lockf fcntl iomix locka lockofd fpunch $fsize fstat revio touch mmap msync
	program "stress-ng directories" prog_stress "$1/dirs" dir dirdeep dirmany dentry link symlink rename getdent inotify open
	[ "$backend" = upstream ] || program "stress-ng extended attributes" prog_stress "$1/xattr" xattr
	program "locks between processes" prog_locks "$1/locks"
}
