package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// account is who Postgres runs as: us, us under another uid in a user namespace, or
// another user. uid is the owner of its files as seen from here.
type account struct {
	name      string
	namespace bool
	other     bool
	uid, gid  int
}

func (a account) String() string { return "as " + a.name }

func chooseAccount(ctx context.Context) (account, error) {
	if os.Geteuid() != 0 {
		return account{name: "this user", uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	namespace := account{name: "root in a user namespace", namespace: true}
	probe := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	namespace.apply(probe)
	refused := errors.New("this system has none")
	if runtime.GOOS == "linux" {
		if refused = probe.Run(); refused == nil {
			return namespace, nil
		}
	}
	a, err := otherUser()
	if err != nil {
		return account{}, fmt.Errorf("start Postgres: it refuses root, user namespaces are not to be had (%w), and %w", refused, err)
	}
	return a, nil
}

func otherUser() (account, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		gid, gerr := strconv.Atoi(u.Gid)
		if errors.Join(err, gerr) == nil && uid != 0 {
			return account{name: "user " + name, other: true, uid: uid, gid: gid}, nil
		}
	}
	return account{}, errors.New("there is neither a user postgres nor a user nobody")
}

// own gives a file or a tree to the account; Postgres refuses data of others.
func (a account) own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("give %s to Postgres: %w", path, err)
	}
	if is, ok := info.Sys().(*syscall.Stat_t); ok && int(is.Uid) == a.uid && int(is.Gid) == a.gid {
		return nil
	}
	// Lchown of the root comes last: until then the next start does all of it again.
	var paths []string
	err = filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	for i := len(paths) - 1; i >= 0 && err == nil; i-- {
		err = os.Lchown(paths[i], a.uid, a.gid)
	}
	if err != nil {
		return fmt.Errorf("give %s to Postgres: %w", path, err)
	}
	return nil
}

// spawn starts the command from a thread that lives until the command has ended:
// the kernel sends the parent-death signal when the starting thread ends, which the
// Go runtime may do at any time with a thread that no goroutine holds.
func spawn(c *exec.Cmd) (chan struct{}, error) {
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait() // how it ended stands in its log and in ProcessState
		}
	}()
	return done, <-started
}
