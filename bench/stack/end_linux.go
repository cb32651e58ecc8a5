package stack

import (
	"os/exec"
	"syscall"
)

// endWithUs lets a killed benchmark leave no process behind, and keeps a terminal's Ctrl-C from it.
func endWithUs(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
