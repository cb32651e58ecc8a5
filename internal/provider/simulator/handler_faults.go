package simulator

import "net/http"

func (s *Simulator) addFault(w http.ResponseWriter, r *http.Request) error {
	var body faultRequest
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	f, err := newFault(body)
	if err != nil {
		return err
	}
	if f, err = s.faults.add(f); err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, f)
	return nil
}

func (s *Simulator) listFaults(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []fault `json:"data"`
	}{"list", s.faults.list()})
	return nil
}

func (s *Simulator) clearFaults(w http.ResponseWriter, _ *http.Request) error {
	s.faults.clear()
	w.WriteHeader(http.StatusNoContent)
	return nil
}
