// Prints, for each Go type of the objects that the stand-in for the kubernetes provider knows, which of its fields
// Kubernetes leaves out of JSON when they are zero: `go run ./zeros >../../tests/standins/kubernetes/zeros.json`.
// OpenAPI does not say it, and the real provider writes every object it is given in that form.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

var (
	omitted   = map[string][]string{}
	marshaler = reflect.TypeFor[json.Marshaler]()
)

func main() {
	for _, root := range []any{
		corev1.Namespace{}, corev1.Service{}, corev1.ServiceAccount{}, corev1.ConfigMap{},
		appsv1.Deployment{}, batchv1.CronJob{}, batchv1.Job{},
		policyv1.PodDisruptionBudget{}, networkingv1.NetworkPolicy{},
		rbacv1.Role{}, rbacv1.RoleBinding{}, rbacv1.ClusterRole{}, rbacv1.ClusterRoleBinding{},
	} {
		walk(reflect.TypeOf(root))
	}
	for name, fields := range omitted {
		if len(fields) == 0 {
			delete(omitted, name)
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(omitted); err != nil {
		panic(err)
	}
}

func walk(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		walk(t.Elem())
	case reflect.Struct:
		name := openAPIName(t)
		if _, known := omitted[name]; known || reflect.PointerTo(t).Implements(marshaler) {
			return
		}
		omitted[name] = nil // Known from here on: some types contain themselves.
		fields := collect(t)
		sort.Strings(fields)
		omitted[name] = fields
	}
}

// collect returns the fields that are left out when zero; pointers are not, they are only when null.
func collect(t reflect.Type) []string {
	fields := []string{}
	for i := 0; i < t.NumField(); i++ {
		field := t.Field(i)
		tag := strings.Split(field.Tag.Get("json"), ",")
		if field.PkgPath != "" || tag[0] == "-" {
			continue
		}
		if tag[0] == "" && field.Anonymous {
			fields = append(fields, collect(field.Type)...)
			continue
		}
		walk(field.Type)
		for _, option := range tag[1:] {
			switch kind := field.Type.Kind(); {
			case option != "omitempty", kind == reflect.Pointer, kind == reflect.Struct, kind == reflect.Interface:
			default:
				fields = append(fields, tag[0])
			}
		}
	}
	return fields
}

// openAPIName turns k8s.io/api/core/v1.PodSpec into io.k8s.api.core.v1.PodSpec.
func openAPIName(t reflect.Type) string {
	return "io.k8s." + strings.ReplaceAll(strings.TrimPrefix(t.PkgPath(), "k8s.io/"), "/", ".") + "." + t.Name()
}
