package payment

import "strings"

// UnknownParameter refuses a parameter of a query. Its pointer names the parameter, unless the name
// could be data that stands in the wrong place: an answer never repeats a submitted value.
func UnknownParameter(name string, allowed []string) FieldError {
	f := FieldError{Pointer: "/query", Code: "parameter_unknown", Message: "has a parameter that is not known here"}
	if plainParameter(name) {
		f.Pointer, f.Message = "/query/"+name, "is not a parameter of this request"
	}
	if len(allowed) == 0 {
		f.Message += ", which takes none"
		return f
	}
	f.Message += ", which takes " + strings.Join(allowed, ", ")
	return f
}

const maxParameter = 32 // characters of a name that is repeated

// plainParameter is true of words, with the marks that other APIs have in names. A number, an
// address, a key or a card would be more than that.
func plainParameter(name string) bool {
	if name == "" || len(name) > maxParameter {
		return false
	}
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && !strings.ContainsRune("_-.[]", rune(c)) {
			return false
		}
	}
	return true
}
