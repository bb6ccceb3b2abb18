# What the smoke tests do with a tree, for scripts that have sourced lib.sh:
# local tools on a mount, and SFTP clients on a server. Each function fails if
# anything is not as it should be.

# sample DIR makes a tree with a bit of everything.
sample() {
	local i
	mkdir -p "$1/many" "$1/deep/a/b/c/d" "$1/empty" "$1/with space/ünïcode"
	for i in $(seq 100); do
		echo "file $i" >"$1/many/$i.txt"
	done
	head -c 3000000 /dev/urandom >"$1/big.bin"
	: >"$1/zero"
	echo deep >"$1/deep/a/b/c/d/file"
	echo strange >"$1/with space/ünïcode/it's \"quoted\""
	echo script >"$1/run.sh"
	chmod 755 "$1/run.sh"
	chmod 600 "$1/zero"
	ln -s deep/a "$1/link"
	ln -s nowhere "$1/dangling"
	find "$1" -exec touch -h -d '2021-03-04 05:06:07' {} +
}

# repository DIR makes a git repository with some history.
repository() {
	git init -q -b main "$1"
	local i
	for i in $(seq 5); do
		seq $((i * 300)) >"$1/numbers-$i"
		git -C "$1" add .
		git -C "$1" -c user.name=smoke -c user.email=smoke@localhost commit -q -m "commit $i"
	done
}

same() { diff -r --no-dereference "$1" "$2"; }

### local tools on a mount; $1 is a directory in it

tool_basic() {
	mkdir "$1"
	echo one >"$1/a"
	echo two >>"$1/a"
	[ "$(cat "$1/a")" = $'one\ntwo' ]
	mv "$1/a" "$1/b"
	[ ! -e "$1/a" ]
	ln -s b "$1/s"
	[ "$(readlink "$1/s")" = b ]
	ln "$1/b" "$1/hard"
	chmod 640 "$1/b"
	[ "$(stat -c %a "$1/b")" = 640 ]
	truncate -s 2 "$1/b"
	[ "$(stat -c %s "$1/hard")" = 2 ]
	touch -d '2020-02-02 02:02:02 UTC' "$1/b"
	[ "$(stat -c %Y "$1/b")" = 1580608922 ]
	mkdir "$1/d"
	! rmdir "$1" 2>/dev/null
	df "$1" >/dev/null
	rm "$1/hard" "$1/s"
	rmdir "$1/d"
}

tool_unlinked() {
	exec 5>"$1/unlinked" 6<"$1/unlinked"
	echo hello >&5
	rm "$1/unlinked"
	echo world >&5
	[ "$(cat <&6)" = $'hello\nworld' ]
	exec 5>&- 6<&-
	[ ! -e "$1/unlinked" ]
}

tool_tar() {
	mkdir "$1"
	tar -C "$work/sample" -cf - . | tar -C "$1" -xf -
	tar -C "$1" -cf - . | tar -C "$work/sample" -df -
	same "$work/sample" "$1"
}

tool_git() {
	git clone -q "$work/repository" "$1"
	git -C "$1" fsck --strict
	echo more >>"$1/numbers-1"
	git -C "$1" -c user.name=smoke -c user.email=smoke@localhost commit -q -a -m more
	git -C "$1" gc -q
	git -C "$1" fsck --strict
	[ -z "$(git -C "$1" status --porcelain)" ]
}

tool_sqlite() {
	sqlite3 "$1" 'create table t(n integer primary key, s text);'
	{
		echo 'begin;'
		seq 2000 | sed "s/.*/insert into t values(&, 'row &');/"
		echo 'commit;'
	} | sqlite3 "$1"
	sqlite3 "$1" "begin; delete from t where n % 2 = 0; rollback; update t set s = 'x' where n <= 100;"
	[ "$(sqlite3 "$1" 'select count(*), sum(s = "x") from t;')" = '2000|100' ]
	[ "$(sqlite3 "$1" 'pragma integrity_check;')" = ok ]
}

tool_rsync() {
	rsync -a "$work/sample/" "$1/"
	local second
	second=$(rsync -ai "$work/sample/" "$1/")
	[ -z "$second" ] || { echo "the second run copied: $second"; return 1; }
	same "$work/sample" "$1"
}

### SFTP clients; $port, $key, $user say where, $1 is a directory there

ssh_options() {
	printf '%s\n' -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
		-o UserKnownHostsFile="$work/known_hosts" -i "$work/key"
}

mapfile_options() { mapfile -t opts < <(ssh_options); }

# batch runs the sftp commands on its standard input.
batch() {
	local opts
	mapfile_options
	if [ -n "${direct:-}" ]; then
		sftp -q -b - -D "$direct"
	else
		sftp -q -b - "${opts[@]}" -P "$port" "$user@127.0.0.1"
	fi
}

client_sftp() {
	mkdir -p "$work/get"
	batch <<-END
		mkdir $1
		cd $1
		put $work/sample/big.bin big
		put -p $work/sample/run.sh
		rename big bigger
		chmod 640 bigger
		symlink bigger sym
		ln bigger hard
		ls -la
		get bigger $work/get/bigger
		df
		put -R $work/sample all
		rm hard
		-rm absent
		mkdir gone
		rmdir gone
	END
	cmp "$work/sample/big.bin" "$work/get/bigger"
	rm -r "$work/get"
}

client_scp() {
	local opts
	mapfile_options
	scp -q -p -r "${opts[@]}" -P "$port" "$work/sample/many" "$user@127.0.0.1:$1"
	scp -q -p -r "${opts[@]}" -P "$port" "$user@127.0.0.1:$1" "$work/scp"
	same "$work/sample/many" "$work/scp"
	rm -r "$work/scp"
}

client_sshfs() {
	on_sshfs sshfs_steps "$work/sshfs$1"
}

# on_sshfs COMMAND… runs it while the server's root is mounted at $work/sshfs.
on_sshfs() {
	local status=0
	mkdir -p "$work/sshfs"
	sshfs -p "$port" -F /dev/null -o IdentityFile="$work/key",UserKnownHostsFile="$work/known_hosts",BatchMode=yes \
		"$user@127.0.0.1:/" "$work/sshfs"
	"$@" || status=1
	fusermount3 -u "$work/sshfs" || fusermount3 -uz "$work/sshfs"
	return $status
}

sshfs_steps() {
	cp -r --no-dereference --preserve=mode "$work/sample" "$1" &&
		same "$work/sample" "$1" &&
		touch -d '2020-02-02 02:02:02 UTC' "$1/zero" &&
		[ "$(stat -c %Y "$1/zero")" = 1580608922 ] &&
		mv "$1/big.bin" "$1/many/big" &&
		echo appended >>"$1/run.sh" &&
		[ "$(tail -n 1 "$1/run.sh")" = appended ] &&
		rm "$1/link" && rmdir "$1/empty" &&
		[ "$(ls "$1/many" | wc -l)" = 101 ]
}

# compare DIR LOCAL compares a directory of the server with one here.
compare() { on_sshfs same "$work/sshfs$1" "$2"; }

rclone_() {
	rclone --config /dev/null --sftp-host 127.0.0.1 --sftp-port "$port" --sftp-user "$user" --sftp-key-file "$work/key" \
		--sftp-known-hosts-file "$work/known_hosts" --sftp-disable-hashcheck --skip-links --low-level-retries 1 --retries 1 "$@"
}

client_rclone() {
	rclone_ copy "$work/sample" ":sftp:$1"
	rclone_ check --download "$work/sample" ":sftp:$1"
	rclone_ moveto ":sftp:$1/big.bin" ":sftp:$1/bigger.bin"
	[ "$(rclone_ size ":sftp:$1" | head -n 1 | tr -dc 0-9)" -ge 100 ]
}

client_lftp() {
	lftp -c "
		set sftp:connect-program 'ssh -a -x $(ssh_options | tr '\n' ' ')'
		set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 30
		open -u $user, -p $port sftp://127.0.0.1
		mirror -R --parallel=2 $work/sample/many $1
		mirror $1 $work/lftp
		mv $1/1.txt $1/first.txt
		rm $1/2.txt"
	same "$work/sample/many" "$work/lftp"
	rm -r "$work/lftp"
}

# clients DIR runs all of them below a directory of the server.
clients() {
	check "sftp$2" client_sftp "$1/sftp"
	check "scp$2" client_scp "$1/scp"
	check "sshfs$2" client_sshfs "$1/sshfs"
	check "rclone$2" client_rclone "$1/rclone"
	check "lftp$2" client_lftp "$1/lftp"
}

# tools DIR runs all local tools below a directory of a mount.
tools() {
	check "names, links and modes" tool_basic "$1/basic"
	check "an unlinked open file" tool_unlinked "$1"
	check "tar" tool_tar "$1/tar"
	check "git clone, commit, gc, fsck" tool_git "$1/git"
	check "sqlite3 with transactions" tool_sqlite "$1/db"
	check "rsync -a twice" tool_rsync "$1/rsync"
}

smoke_packages() {
	packages fusermount3:fuse3 sshd:openssh-server sftp:openssh-client sshfs:sshfs rclone:rclone lftp:lftp \
		sqlite3:sqlite3 rsync:rsync git:git ps:procps
}

# smoke_begin is the start of every smoke test.
smoke_begin() {
	smoke_packages
	[ -n "${SFTPBRIDGE_BUILT:-}" ] || build || exit 1
	begin
	user=$(id -un)
	sample "$work/sample"
	repository "$work/repository"
	mkdir "$work/upstream"
	: >"$work/known_hosts"
}
