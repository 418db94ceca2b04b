// Keeps a folder of a git repository in sync with a namespace, as Argo CD's application controller does with its
// defaults for automated sync, pruning and self-healing: server-side apply, and a sync only where there is a diff.
// Every look is a line of JSON on standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/engine"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	application = "pipelines"
	// Argo CD's names for what it tracks and writes.
	trackingID = "argocd.argoproj.io/tracking-id"
	manager    = "argocd-controller"
	pause      = time.Second
)

// look is what one comparison found, and what was done about it.
type look struct {
	Revision string   `json:"revision"`
	Diffs    []string `json:"diffs"`
	Synced   []string `json:"synced"`
	Tree     []string `json:"tree"`
	Error    string   `json:"error,omitempty"`
}

type app struct {
	config    *rest.Config
	cluster   cache.ClusterCache
	engine    engine.GitOpsEngine
	remote    string
	clone     string
	folder    string
	namespace string
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: KUBECONFIG=FILE gitops REPOSITORY FOLDER NAMESPACE CLONE")
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, remote, folder, namespace, clone string) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	cluster := cache.NewClusterCache(config,
		cache.SetNamespaces([]string{namespace}),
		cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			id := object.GetAnnotations()[trackingID]
			return id, id != ""
		}),
	)
	one := &app{
		config: config, cluster: cluster, engine: engine.NewEngine(config, cluster, engine.WithLogr(logr.Discard())),
		remote: remote, clone: clone, folder: folder, namespace: namespace,
	}
	stop, err := one.engine.Run()
	if err != nil {
		return err
	}
	defer stop()
	for ctx.Err() == nil {
		one.report(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (a *app) report(ctx context.Context) {
	found, err := a.look(ctx)
	if err != nil {
		found.Error = err.Error()
	}
	line, err := json.Marshal(found)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func (a *app) look(ctx context.Context) (look, error) {
	found := look{Diffs: []string{}, Synced: []string{}, Tree: []string{}}
	targets, revision, err := a.wanted(ctx)
	found.Revision = revision
	if err != nil {
		return found, err
	}
	if found.Diffs, err = a.compare(targets); err != nil {
		return found, err
	}
	found.Tree = a.tree()
	if len(found.Diffs) == 0 {
		return found, nil
	}
	// In the foreground only the garbage collector ends a removal, and an API server alone has none.
	background := metav1.DeletePropagationBackground
	results, err := a.engine.Sync(ctx, targets, a.isOurs, revision, a.namespace,
		sync.WithPrune(true), sync.WithPrunePropagationPolicy(&background), sync.WithServerSideApply(true), sync.WithServerSideApplyManager(manager),
		sync.WithLogr(logr.Discard()))
	for _, result := range results {
		found.Synced = append(found.Synced, fmt.Sprintf("%s/%s %s", result.ResourceKey.Kind, result.ResourceKey.Name, result.Status))
	}
	return found, err
}

// wanted fetches the repository and reads the objects of the folder.
func (a *app) wanted(ctx context.Context) ([]*unstructured.Unstructured, string, error) {
	if _, err := os.Stat(a.clone); os.IsNotExist(err) {
		if _, err := git(ctx, "clone", "--quiet", a.remote, a.clone); err != nil {
			return nil, "", err
		}
	}
	for _, words := range [][]string{{"fetch", "--quiet"}, {"reset", "--quiet", "--hard", "@{upstream}"}} {
		if _, err := git(ctx, append([]string{"-C", a.clone}, words...)...); err != nil {
			return nil, "", err
		}
	}
	revision, err := git(ctx, "-C", a.clone, "rev-parse", "HEAD")
	if err != nil {
		return nil, "", err
	}
	objects, err := a.read()
	return objects, strings.TrimSpace(revision), err
}

func (a *app) read() ([]*unstructured.Unstructured, error) {
	paths, err := filepath.Glob(filepath.Join(a.clone, a.folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		some, err := kube.SplitYAML(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		objects = append(objects, some...)
	}
	for _, object := range objects {
		a.track(object)
	}
	return objects, nil
}

func (a *app) track(object *unstructured.Unstructured) {
	object.SetNamespace(a.namespace)
	key := kube.GetResourceKey(object)
	notes := object.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	notes[trackingID] = fmt.Sprintf("%s:%s/%s:%s/%s", application, key.Group, key.Kind, key.Namespace, key.Name)
	object.SetAnnotations(notes)
}

func (a *app) isOurs(resource *cache.Resource) bool {
	id, _ := resource.Info.(string)
	return strings.HasPrefix(id, application+":")
}

// compare asks both ways that Argo CD can, and returns what either calls out of sync.
func (a *app) compare(targets []*unstructured.Unstructured) ([]string, error) {
	found := map[string]bool{}
	kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
	dryRuns, cleanup, err := kubectl.ManageServerSideDiffDryRuns(a.config)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	ways := map[string][]diff.Option{
		"server-side diff":      {diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(diff.NewK8sServerSideDryRunner(dryRuns))},
		"structured merge diff": {diff.WithStructuredMergeDiff(true)},
	}
	for way, options := range ways {
		live, err := a.cluster.GetManagedLiveObjs(targets, a.isOurs)
		if err != nil {
			return nil, err
		}
		pairs := sync.Reconcile(targets, live, a.namespace, a.cluster)
		options = append(options, diff.WithManager(manager), diff.WithGVKParser(a.cluster.GetGVKParser()), diff.WithLogr(logr.Discard()))
		diffs, err := diff.DiffArray(copies(pairs.Target), copies(pairs.Live), options...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way, err)
		}
		for index, one := range diffs.Diffs {
			// What is no longer in git is not a diff to the engine; Argo CD calls it out of sync.
			if one.Modified || pairs.Target[index] == nil {
				found[fmt.Sprintf("%s: %s", way, name(pairs.Target[index], pairs.Live[index]))] = true
			}
		}
	}
	return sorted(found), nil
}

// tree names what is tracked and all that it owns.
func (a *app) tree() []string {
	found := map[string]bool{}
	var roots []kube.ResourceKey
	for key := range a.cluster.FindResources(a.namespace, a.isOurs) {
		roots = append(roots, key)
	}
	a.cluster.IterateHierarchyV2(roots, func(resource *cache.Resource, _ map[kube.ResourceKey]*cache.Resource) bool {
		found[fmt.Sprintf("%s/%s", resource.Ref.Kind, resource.Ref.Name)] = true
		return true
	})
	return sorted(found)
}

func copies(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	made := make([]*unstructured.Unstructured, len(objects))
	for index, object := range objects {
		if object != nil {
			made[index] = object.DeepCopy()
		}
	}
	return made
}

func name(target, live *unstructured.Unstructured) string {
	if target == nil {
		target = live
	}
	return fmt.Sprintf("%s/%s", target.GetKind(), target.GetName())
}

func sorted(set map[string]bool) []string {
	words := make([]string, 0, len(set))
	for word := range set {
		words = append(words, word)
	}
	sort.Strings(words)
	return words
}

func git(ctx context.Context, words ...string) (string, error) {
	output, err := exec.CommandContext(ctx, "git", words...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(words, " "), err, output)
	}
	return string(output), nil
}
