package devstack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// apply makes the command end with us (SIGQUIT is Postgres' word for at once), keeps
// a terminal's Ctrl-C from it, since its end is ours to order, and runs it as the account.
func (a account) apply(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	switch {
	case a.namespace:
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}}
	case a.other:
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // ids are not negative
	}
}

// serverProcesses are the postmaster and its children, which work in the data
// directory. A zombie works nowhere.
func serverProcesses(data string) []int {
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		return nil
	}
	var pids []int
	places, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is well formed
	for _, place := range places {
		if cwd, err := os.Readlink(place); err != nil || cwd != data {
			continue
		}
		process := filepath.Dir(place)
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil || !strings.HasPrefix(string(name), "postgres") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(process)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
