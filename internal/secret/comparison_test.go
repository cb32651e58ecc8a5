package secret

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// secretWords in a name say that its value must not be compared by an operator.
var secretWords = []string{
	"mac", "macs", "hmac", "signature", "signatures", "secret", "secrets", "token", "tokens", "password", "pepper", "bearer", "credential", "maced",
}

// bounds at the one or the other end of a name say that it is a number.
var bounds = []string{"max", "min", "size", "length", "count", "bytes"}

// early are comparisons that stop at the first difference, or fold one away.
var early = []string{
	"bytes.Equal", "bytes.EqualFold", "bytes.Compare", "bytes.HasPrefix", "strings.EqualFold", "strings.Compare", "strings.HasPrefix",
	"reflect.DeepEqual", "slices.Equal", "slices.Compare", "slices.Contains", "slices.Index", "cmp.Compare",
}

// right are for this package alone, so that there is one place to look at.
var right = []string{"hmac.Equal", "subtle.ConstantTimeCompare", "subtle.ConstantTimeEq", "subtle.ConstantTimeByteEq"}

// comparisons are the lines of a file where a secret is compared by anything but
// Equal. It goes by names, which are what a reviewer sees as well: a secret is called
// one, and what is called so and is none has a comment on its line, no secret: and why.
func comparisons(fset *token.FileSet, file *ast.File) (lines []int) {
	harmless := map[int]bool{}
	for _, group := range file.Comments {
		for _, c := range group.List {
			if why, ok := strings.CutPrefix(c.Text, "// no secret: "); ok && why != "" {
				harmless[fset.Position(c.Pos()).Line] = true
			}
		}
	}
	found := func(at ast.Node) {
		if line := fset.Position(at.Pos()).Line; !harmless[line] {
			lines = append(lines, line)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && (names(n.X) && !fixed(n.Y) || names(n.Y) && !fixed(n.X)) {
				found(n)
			}
		case *ast.SwitchStmt:
			if n.Tag != nil && names(n.Tag) {
				found(n)
			}
		case *ast.CallExpr:
			name := called(n)
			if slices.Contains(right, name) || slices.Contains(early, name) && slices.ContainsFunc(n.Args, names) {
				found(n)
			}
		}
		return true
	})
	return slices.Compact(lines)
}

// names tells whether the value of an expression is called a secret, or is one in
// another form. What is computed from one otherwise, as its length, is not one.
func names(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		w := words(e.Name)
		return !slices.Contains(bounds, w[0]) && !slices.Contains(bounds, w[len(w)-1]) &&
			slices.ContainsFunc(w, func(w string) bool { return slices.Contains(secretWords, w) })
	case *ast.SelectorExpr:
		return names(e.Sel)
	case *ast.IndexExpr:
		return names(e.X)
	case *ast.SliceExpr:
		return names(e.X)
	case *ast.StarExpr:
		return names(e.X)
	case *ast.ParenExpr:
		return names(e.X)
	case *ast.UnaryExpr:
		return names(e.X)
	case *ast.CallExpr:
		name := called(e)
		if name == "string" || name == "bytes.Clone" || strings.HasSuffix(name, ".EncodeToString") {
			return slices.ContainsFunc(e.Args, names)
		}
		return strings.HasSuffix(name, ".Sum") || strings.HasSuffix(name, ".MAC")
	}
	return false
}

// fixed is a literal or nil: whether a secret is missing is none.
func fixed(e ast.Expr) bool {
	if i, ok := e.(*ast.Ident); ok {
		return i.Name == "nil" || i.Name == "true" || i.Name == "false"
	}
	_, ok := e.(*ast.BasicLit)
	return ok
}

func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
		return "." + f.Sel.Name
	}
	return ""
}

// words of a name in camel case, in lower case.
func words(name string) (all []string) {
	start, runes := 0, []rune(name)
	for i := 1; i <= len(runes); i++ {
		if i == len(runes) || runes[i] == '_' || unicode.IsUpper(runes[i]) && !unicode.IsUpper(runes[i-1]) ||
			unicode.IsUpper(runes[i]) && i+1 < len(runes) && unicode.IsLower(runes[i+1]) {
			all = append(all, strings.ToLower(strings.Trim(string(runes[start:i]), "_")))
			start = i
		}
	}
	return all
}

func TestSecretsAreComparedByEqualAlone(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || path != "../.." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		// Tests compare what they made themselves, and this package is where Equal lives.
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "../../internal/secret":
			return nil
		}
		files++
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, line := range comparisons(fset, file) {
			t.Errorf("%s:%d compares a secret: secret.Equal does that in constant time", strings.TrimPrefix(path, "../../"), line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("%d files were looked at: that is not the whole program", files)
	}
}

// The rule finds what is planted, and nothing beside it.
func TestThePlantedComparisonsAreFound(t *testing.T) {
	const path = "testdata/planted.go"
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []int
	for i, line := range strings.Split(string(source), "\n") {
		if regexp.MustCompile(`// planted$`).MatchString(line) {
			want = append(want, i+1)
		}
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := comparisons(fset, file); len(want) < 10 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("found in lines %d, planted in %d", got, want)
	}
}
