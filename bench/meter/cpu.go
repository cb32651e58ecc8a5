package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is USER_HZ, which Linux has at 100 on every architecture.
const ticksPerSecond = 100

// CPU is the user and system time of a process and of all its descendants, the ended ones included.
// For Postgres, whose backends are children of the postmaster, that is the whole server.
type CPU map[string]time.Duration

// ReadCPU reads the time of each named process tree. It needs Linux.
func ReadCPU(roots map[string]int) (CPU, error) {
	processes, err := readProcesses()
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for pid, p := range processes {
		children[p.parent] = append(children[p.parent], pid)
	}
	cpu := CPU{}
	for name, root := range roots {
		if _, ok := processes[root]; !ok {
			return nil, fmt.Errorf("process %d (%s) is not running", root, name)
		}
		for tree := []int{root}; len(tree) > 0; {
			pid := tree[len(tree)-1]
			tree = append(tree[:len(tree)-1], children[pid]...)
			cpu[name] += processes[pid].used
		}
	}
	return cpu, nil
}

// Self is the time of this process alone, without its children.
func Self() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// Sub is the time used since before.
func (c CPU) Sub(before CPU) CPU {
	used := CPU{}
	for name, d := range c {
		used[name] = d - before[name]
	}
	return used
}

type process struct {
	parent int
	used   time.Duration // its own and that of the children it has waited for
}

func readProcesses() (map[int]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("/proc has no processes: CPU by process is measured on Linux only")
	}
	processes := make(map[int]process, len(files))
	for _, file := range files {
		content, err := os.ReadFile(file) //nolint:gosec // below /proc
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		if processes[pid], err = parseStat(string(content)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return processes, nil
}

// parseStat reads a line of /proc/PID/stat. The command's name is in parentheses and may hold anything.
func parseStat(line string) (p process, err error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 15 {
		return p, fmt.Errorf("%q is not a process's stat line", line)
	}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return p, err
	}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return p, err
		}
		p.used += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return p, nil
}

// Memory is the resident set of a process now and the largest that it has had, in bytes.
func Memory(pid int) (now, peak int64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(content)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "VmHWM" && name != "VmRSS" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if name == "VmHWM" {
			peak = kib << 10
		} else {
			now = kib << 10
		}
	}
	if now == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("process %d has no VmRSS or VmHWM", pid)
	}
	return now, peak, nil
}
