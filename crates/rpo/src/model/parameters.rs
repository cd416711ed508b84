//! Parameters by name, which for a model are the checkpoint's keys: to save them, to read their gradients, to update them.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

pub use crate::store::tensors::Parameter;

/// Access to a module's parameters by name. Every module has it.
pub trait NamedParameters: Module {
    /// Every parameter, in the order of the module; values are shared with it, not copied.
    fn parameters(&self) -> Vec<Parameter> {
        let mut found = Vec::new();
        self.visit(&mut Named::new(|name, shape, values: Leaf<'_>| {
            found.push(Parameter { name, shape, values: values.flat() });
        }));
        found
    }

    /// Those that are trained: all of a module but what is frozen, as all beside adapters is where there are some.
    fn trained(&self) -> Vec<Parameter> {
        let mut found = Vec::new();
        self.visit(&mut Named::new(|name, shape, values: Leaf<'_>| {
            if !values.frozen() {
                found.push(Parameter { name, shape, values: values.flat() });
            }
        }));
        found
    }

    /// The gradient of every parameter in the same order, `None` where the loss did not reach it.
    fn gradients(&self, gradients: &mut Gradients) -> Vec<(String, Option<Tensor<1>>)> {
        let mut found = Vec::new();
        self.visit(&mut Named::new(|name, _, leaf: Leaf<'_>| found.push((name, leaf.gradient(gradients)))));
        found
    }

    /// Replaces every parameter by what `update` makes of its name, dimensions and flat values. The new ones are leaves
    /// of their own: no gradient flows between the two modules.
    #[must_use]
    fn map_parameters(self, update: impl FnMut(&str, &[usize], Tensor<1>) -> Tensor<1>) -> Self {
        self.map(&mut Updated { path: Vec::new(), update })
    }
}

impl<M: Module> NamedParameters for M {}

/// A parameter of either rank, so that visitors need no generics.
enum Leaf<'a> {
    Vector(&'a Tensor<1>),
    Matrix(&'a Tensor<2>),
}

impl Leaf<'_> {
    fn flat(&self) -> Tensor<1> {
        match self {
            Self::Vector(x) => flatten((*x).clone()),
            Self::Matrix(x) => flatten((*x).clone()),
        }
    }

    /// Whether it gets no gradient though gradients are tracked.
    fn frozen(&self) -> bool {
        let (tracked, trained) = match self {
            Self::Vector(x) => (x.is_autodiff(), x.is_require_grad()),
            Self::Matrix(x) => (x.is_autodiff(), x.is_require_grad()),
        };
        tracked && !trained
    }

    fn gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        match self {
            Self::Vector(x) => x.grad_remove(gradients),
            Self::Matrix(x) => x.grad_remove(gradients).map(flatten),
        }
    }
}

/// The values outside any graph.
fn flatten<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n = x.shape().num_elements();
    let x = if x.is_autodiff() { x.inner() } else { x };
    x.reshape([n])
}

/// Whether a module's name in its container is part of a key: the variant of an enum such as that of [`super::Model`] is not,
/// nor is the adapter of a map.
fn is_key(name: &str, container: &str) -> bool {
    !container.starts_with("Enum:") && (name, container) != ("adapter", "Struct:Linear")
}

fn enter(path: &mut Vec<String>, name: &str, container: &str) {
    if is_key(name, container) {
        path.push(name.into());
    }
}

fn exit(path: &mut Vec<String>, name: &str, container: &str) {
    if is_key(name, container) {
        path.pop();
    }
}

struct Named<F> {
    path: Vec<String>,
    visit: F,
}

impl<F: FnMut(String, Vec<usize>, Leaf<'_>)> Named<F> {
    fn new(visit: F) -> Self {
        Self { path: Vec::new(), visit }
    }
}

impl<F: FnMut(String, Vec<usize>, Leaf<'_>)> ModuleVisitor for Named<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        enter(&mut self.path, name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        exit(&mut self.path, name, container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let name = self.path.join(".");
        // The rank is a constant of this instance, known to be 1 or 2; reshaping to the same rank would lose the
        // identity by which gradients are found, so the rank is recovered by type.
        let any: &dyn std::any::Any = &value;
        if let Some(vector) = any.downcast_ref::<Tensor<1>>() {
            (self.visit)(name, shape, Leaf::Vector(vector));
        } else if let Some(matrix) = any.downcast_ref::<Tensor<2>>() {
            (self.visit)(name, shape, Leaf::Matrix(matrix));
        } else {
            unreachable!("{name}: models have only vectors and matrices");
        }
    }
}

struct Updated<F> {
    path: Vec<String>,
    update: F,
}

impl<F: FnMut(&str, &[usize], Tensor<1>) -> Tensor<1>> ModuleMapper for Updated<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        enter(&mut self.path, name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        exit(&mut self.path, name, container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        param.map(|value| {
            let shape = value.shape();
            let (tracked, trained) = (value.is_autodiff(), value.is_require_grad());
            let updated = (self.update)(&name, &shape, flatten(value)).reshape(shape);
            // What is frozen stays so.
            if tracked { Tensor::from_inner(updated).set_require_grad(trained) } else { updated }
        })
    }
}
