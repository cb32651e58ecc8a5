package test

import (
	"os/exec"
	"syscall"
)

// endWithUs lets a test process that dies leave nothing behind, and keeps a
// terminal's Ctrl-C from its children.
func endWithUs(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
