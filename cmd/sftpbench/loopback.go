package main

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/spf13/cobra"
)

// newLoopback is the peer of a mount of a directory: go-fuse's own, set up for
// the same caches as others have (with passthrough where the kernel has it).
func newLoopback() *cobra.Command {
	return &cobra.Command{
		Use:    "loopback DIR MOUNTPOINT",
		Short:  "Mount a directory with go-fuse's loopback file system",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := fs.NewLoopbackRoot(args[0])
			if err != nil {
				return err
			}
			hour := time.Hour
			server, err := fs.Mount(args[1], root, &fs.Options{
				AttrTimeout:     &hour,
				EntryTimeout:    &hour,
				NullPermissions: true,
				MountOptions: fuse.MountOptions{
					FsName:        args[0],
					Name:          "loopback",
					MaxWrite:      fuse.MAX_KERNEL_WRITE,
					MaxReadAhead:  fuse.MAX_KERNEL_WRITE,
					MaxStackDepth: 1,
				},
			})
			if err != nil {
				return err
			}
			go func() {
				<-cmd.Context().Done()
				server.Unmount()
			}()
			server.Wait()
			return nil
		},
	}
}
