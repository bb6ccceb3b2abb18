package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"

	"github.com/spf13/cobra"

	"sftpbridge/fusefs"
)

func newServe(argv []string) *cobra.Command {
	var f treeFlags
	var m mountFlags
	var s sftpFlags
	var users string
	cmd := &cobra.Command{
		Use:   "serve [flags] BACKEND",
		Short: "Serve a tree over SFTP; with --mount, mount it too",
		Long: `serve opens the SFTP door to a backend, and with --mount DIR the FUSE door too.
The user who runs it, or --user, logs in with the keys in --authorized-keys;
with --users system, all accounts of this machine do with those in their
~/.ssh/authorized_keys, each as itself.

` + backendForms + `.`,
		Args: exactArgs("BACKEND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.applyOptions(cmd.Flags()); err != nil {
				return err
			}
			cfg, err := f.config(args[0])
			if err != nil {
				return err
			}
			switch users {
			case "system":
				s.SystemUsers = true
			case "":
				if cfg.Users[0].AuthorizedKeys, err = s.files(cfg.Users[0].Name); err != nil {
					return err
				}
			default:
				return usagef("--users %s: want system", users)
			}
			f.tree.SFTP = []sftpConfig{s.sftpConfig}
			if m.Dir != "" {
				f.addMount(cfg, m)
			} else if m.AllowOther {
				return usagef("--allow-other goes with --mount")
			}
			cfg.Trees = []treeConfig{f.tree}
			return f.runDoors(cmd, argv, cfg)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&m.Dir, "mount", "", "mount the tree at `DIR` too")
	m.add(fs)
	s.add(fs)
	fs.StringVar(&users, "users", "", "`WHO` logs in instead of one user: system, the accounts of this machine")
	fs.StringVar(&f.user, "user", "", "`NAME` of the account that logs in (default who runs this)")
	fs.StringVar(&f.umask, "umask", "", "octal `UMASK` of what is made through SFTP (default 022)")
	f.addUpstream(fs)
	f.addDoor(fs)
	f.addLog(fs)
	return cmd
}

func newMount(argv []string) *cobra.Command {
	var f treeFlags
	var m mountFlags
	cmd := &cobra.Command{
		Use:   "mount [flags] BACKEND DIR",
		Short: "Mount a tree",
		Long: `mount opens the FUSE door to a backend. It is also what mount(8) calls for the
type fuse.sftpbridge, in /etc/fstab or as

	mount -t fuse.sftpbridge -o identity=/root/.ssh/id_ed25519,allow_other host:/srv /mnt

and, to change flags of a mount that is there, as -o remount,ro or -o remount,rw.

` + backendForms + `.`,
		Args: exactArgs("BACKEND", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if options := f.allOptions(); slices.Contains(options, "remount") {
				return fusefs.Remount(args[1], options)
			}
			if err := f.applyOptions(cmd.Flags()); err != nil {
				return err
			}
			cfg, err := f.config(args[0])
			if err != nil {
				return err
			}
			m.Dir = args[1]
			f.addMount(cfg, m)
			cfg.Trees = []treeConfig{f.tree}
			return f.runDoors(cmd, argv, cfg)
		},
	}
	fs := cmd.Flags()
	m.add(fs)
	f.addUpstream(fs)
	f.addDoor(fs)
	f.addLog(fs)
	return cmd
}

// addMount gives the tree a mount, which is the invoking user's or, with
// --allow-other, that of all accounts of this machine.
func (f *treeFlags) addMount(cfg *config, m mountFlags) {
	m.Options = f.fuseOpts
	cfg.SystemUsers = m.AllowOther
	f.tree.Mount = []mountConfig{m.mountConfig}
}

// files returns the files of keys of the account name; there has to be one, if
// there is no authority for certificates.
func (f *sftpFlags) files(name string) ([]string, error) {
	home := os.Getenv("HOME")
	if u, err := user.Lookup(name); err == nil {
		home = u.HomeDir
	}
	files := f.keyFiles(home)
	if len(files) == 0 && len(f.UserCAKeys) == 0 {
		return nil, fmt.Errorf("nobody could log in: there is no %s/.ssh/authorized_keys; name a file with --authorized-keys", home)
	}
	return files, nil
}

// runDoors opens the doors that a config made of flags asks for, here or in
// the background.
func (f *treeFlags) runDoors(cmd *cobra.Command, argv []string, cfg *config) error {
	p, err := planOf(cfg)
	if err != nil {
		return err
	}
	if f.daemon && !inBackground() {
		return background(cmd.Context(), argv, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return runPlan(cmd.Context(), p, f.logFile, cmd.OutOrStdout(), cmd.ErrOrStderr())
}

func newRun(argv []string) *cobra.Command {
	var f treeFlags
	var file string
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Open the trees, doors and users of a configuration file",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("run: no --config FILE")
			}
			p, err := loadConfig(file)
			if err != nil {
				return err
			}
			if f.daemon && !inBackground() {
				return background(cmd.Context(), argv, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return runPlan(cmd.Context(), p, f.logFile, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&file, "config", "c", "", "configuration `FILE`")
	fs.BoolVar(&f.daemon, "daemon", false, "go to the background once the doors are open")
	fs.StringVar(&f.logFile, "log-file", "", "with --daemon, log to `FILE`")
	return cmd
}

func newCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration file",
		Long:  `check names the file, line and column of what is wrong in a configuration, and opens no door.`,
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("check: no --config FILE")
			}
			p, err := loadConfig(file)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d trees, %d users: good\n", file, len(p.trees), len(p.users.listed))
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`")
	return cmd
}
